"""Secrets never leave a command line; what is no secret stays readable."""

from __future__ import annotations

import pytest

from gputap.profiler.redact import MASK, is_secret_name, redact


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["--token", "abc"], ["--token", MASK]),
        (["--hf-token=abc"], [f"--hf-token={MASK}"]),
        (["--hfToken", "abc"], ["--hfToken", MASK]),
        (["-password", "-x"], ["-password", MASK]),
        (["--api-key", "abc", "--steps", "5"], ["--api-key", MASK, "--steps", "5"]),
        (["AWS_SECRET_ACCESS_KEY=abc"], [f"AWS_SECRET_ACCESS_KEY={MASK}"]),
        (["wandb.api_key=abc"], [f"wandb.api_key={MASK}"]),
        (["--secret=two words"], [f"--secret={MASK}"]),
        (["sh", "-c", "python t.py --token abc x"], ["sh", "-c", f"python t.py --token {MASK} x"]),
        (["-H", "Authorization: Bearer abc"], ["-H", f"Authorization:{MASK}"]),
        (["s3://user:abc@host/data"], [f"s3://{MASK}@host/data"]),
        (["http://h/x?token=abc&n=1"], [f"http://h/x?token={MASK}&n=1"]),
        (['{"token":"abc","n":1}'], [f'{{"token":"{MASK}","n":1}}']),
        (['{"token": "abc"}'], [f'{{"token": {MASK}']),
        (["hf_abcdefghijklmnopqrstuvwx"], [MASK]),
        (["x=eyJhbGciOiJI.eyJzdWIi.c2ln"], [f"x={MASK}"]),
    ],
)
def test_secret_is_masked(argv: list[str], shown: list[str]) -> None:
    assert list(redact(argv)) == shown
    assert not any("abc" in argument for argument in redact(argv))


@pytest.mark.parametrize(
    "argv",
    [
        ["python", "train.py", "--tokenizer", "gpt2", "--max-tokens", "128", "--lr=0.1"],
        ["--token-file", "/run/t", "--sort-key", "len", "--num_tokens=5", "--key", "x"],
        ["a=b=c", "--flag", "-v", "", "https://host/path"],
    ],
)
def test_ordinary_arguments_stay(argv: list[str]) -> None:
    assert list(redact(argv)) == argv


def test_option_without_value_does_not_eat_the_next_option() -> None:
    assert redact(["--token", "--steps", "5"]) == ("--token", "--steps", "5")


@pytest.mark.parametrize("name", ["", "---", "tokens", "keyboard", "monkey", "passes"])
def test_no_secret_names(name: str) -> None:
    assert not is_secret_name(name)
