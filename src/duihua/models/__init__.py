"""Networks made of the layers in `nn`, and the directories that hold them."""
