"""Fonts and files: Chinese is drawn or refused, never boxes without a word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from duihua.errors import DuihuaError
from duihua.report.inside import style
from duihua.report.inside.style import canvas, chinese_font, drawn, heat, signed, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def love() -> Figure:
    return canvas(3, 1, "我爱你")


def test_an_installed_chinese_font_draws_chinese_without_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    if chinese_font() is None:
        pytest.skip("no Chinese font on this machine (apt install fonts-noto-cjk)")
    drawn(love, "png", "love")
    assert capsys.readouterr().err == ""


def test_without_a_chinese_font_a_png_is_refused_and_an_svg_warns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(style, "CHINESE_FONTS", ())
    with pytest.raises(DuihuaError, match="fonts-noto-cjk"):
        drawn(love, "png", "love")
    svg = drawn(love, "svg", "love").decode("utf-8")
    assert "我爱你" in svg
    assert "fonts-noto-cjk" in capsys.readouterr().err
    drawn(lambda: canvas(3, 1, "love"), "png", "love")  # negative control: what the other fonts have is no fault
    assert capsys.readouterr().err == ""


def test_an_svg_asks_for_fonts_of_every_system() -> None:
    svg = drawn(love, "svg", "love").decode("utf-8")
    assert "PingFang SC" in svg
    assert "Microsoft YaHei" in svg


def test_lines_are_broken_at_spaces_and_between_characters_but_not_before_a_mark() -> None:
    assert wrapped("one two three", 8) == ["one two", "three"]
    assert wrapped("我爱你，你也爱我。", 8) == ["我爱你，", "你也爱", "我。"]
    assert wrapped("a\nb", 9) == ["a", "b"]


def test_numbers_have_a_real_minus_and_zero_has_none() -> None:
    assert signed(-1.234, ".2f") == "−1.23"
    assert signed(-0.001, ".2f") == "0.00"


def test_text_with_a_dollar_is_not_read_as_mathematics() -> None:
    def draw() -> Figure:
        figure = canvas(3, 2, "x")
        heat(figure.add_subplot(), [[0.1, 0.2]], ["$a"], ["$b$", "c"], numbers=".1f")
        return figure

    assert "$b$" in drawn(draw, "svg", "x").decode("utf-8")
