"""Pictures of what goes on in a model: one file a picture, each with its data (plain JSON) and its drawing."""
