from pathlib import Path

import pytest
import torch

from pilothouse.cli.demo.model import GPT, Shape
from pilothouse.cli.demo.recipe import Recipe
from pilothouse.cli.demo.text import VOCABULARY, Windows, python_sources
from pilothouse.cli.demo.train import warmup_and_cosine

SHAPE = Shape(width=16, layers=1, heads=2, length=8)


def test_each_character_is_guessed_once_and_a_window_begins_where_the_last_one_ended() -> None:
    windows = Windows(bytes(range(65, 65 + 25)), length=8)
    assert len(windows) == 3
    assert [window[0].item() for window in windows] == [65, 73, 81]  # type: ignore[attr-defined]  # len and index make it iterable
    assert windows[0][-1] == windows[1][0]


def test_characters_outside_of_the_vocabulary_are_read_as_one() -> None:
    assert set(Windows("äöü€".encode() * 4, length=4)[0].tolist()) == {VOCABULARY - 1}


def test_what_is_held_out_is_never_trained_on(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"m{number:02}.py").write_bytes(bytes([40 + number]) * 100)
    split = python_sources(length=10, folder=tmp_path)
    trained_on = {int(number) for window in range(len(split.training)) for number in split.training[window]}
    held_out = {int(number) for window in range(len(split.validation)) for number in split.validation[window]}
    assert held_out - {10} == {40, 50}
    assert not (held_out & trained_on) - {10}, "but for the line ends between files"


def test_too_few_sources_are_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="at least 10"):
        python_sources(length=8, folder=tmp_path)


def test_the_model_sees_only_what_came_before() -> None:
    torch.manual_seed(0)
    model = GPT(SHAPE)
    torch.nn.init.normal_(model.head.weight)
    characters = torch.randint(0, VOCABULARY, (1, 8))
    changed = characters.clone()
    changed[0, 5] = (changed[0, 5] + 1) % VOCABULARY
    before, after = model(characters), model(changed)
    assert torch.equal(before[0, :5], after[0, :5])
    assert not torch.equal(before[0, 5:], after[0, 5:])


def test_the_first_guess_is_that_every_character_is_equally_likely() -> None:
    assert torch.equal(GPT(SHAPE)(torch.zeros(1, 8, dtype=torch.long)), torch.zeros(1, 8, VOCABULARY))


def test_the_rate_rises_in_a_line_and_falls_to_a_tenth() -> None:
    recipe = Recipe("run", "", steps=110, seed=0, warmup_steps=10)
    factors = [warmup_and_cosine(step, recipe) for step in range(111)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9] == pytest.approx(1.0)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[110] == pytest.approx(0.1)
