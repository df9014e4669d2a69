"""Which files are checkpoints, of which run and step."""

from pathlib import Path

import pytest

from bayesphase.recording.layout import Checkpoint, find_checkpoints


def made(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("step1000.pt", ("root", 1000, None, "step1000.pt")),
        ("a/step1000.pt", ("a", 1000, None, "a/step1000.pt")),
        (
            "logs/version_0/checkpoints/epoch=3-step=900.ckpt",
            ("logs/version_0", 900, 3, "logs/version_0/checkpoints/epoch=3-step=900.ckpt"),
        ),
        ("a/checkpoint-50/model.safetensors", ("a", 50, None, "a/checkpoint-50")),
        ("a/checkpoint-50/pytorch_model.bin.index.json", ("a", 50, None, "a/checkpoint-50")),
        ("global_step10/mp_rank_00_model_states.pt", ("root", 10, None, "global_step10")),
        (
            "pythia-410m-seed3/step512/model.safetensors",
            ("pythia-410m-seed3", 512, None, "pythia-410m-seed3/step512"),
        ),
        ("seed3/iter_000250.pth", ("seed3", 250, None, "seed3/iter_000250.pth")),
        ("a/epoch7.pt", ("a", 7, 7, "a/epoch7.pt")),
        ("a/0042.safetensors", ("a", 42, None, "a/0042.safetensors")),
        ("a/step7/weights.pt", ("a", 7, None, "a/step7/weights.pt")),
    ],
)
def test_layouts(tmp_path: Path, path: str, expected: tuple) -> None:
    found = find_checkpoints(made(tmp_path / "root", path))
    assert found.checkpoints == [Checkpoint(*expected)]
    assert not found.other


def test_steps_are_ordered_by_number_and_what_differs_in_names_is_a_run(tmp_path: Path) -> None:
    made(tmp_path, *(f"seed{r}-step{s}.pt" for r in (1, 2) for s in (10, 9, 100)))
    found = find_checkpoints(tmp_path).checkpoints
    assert [(c.run, c.step) for c in found] == [
        (f"seed{r}", s) for r in (1, 2) for s in (9, 10, 100)
    ]


def test_what_is_beside_weights_is_not_taken_for_them(tmp_path: Path) -> None:
    made(
        tmp_path,
        *(f"checkpoint-5/{n}" for n in ("model.safetensors", "optimizer.pt", "rng_state.pth")),
    )
    made(tmp_path, "run/step5/model.pt", "run/step5/optimizer.pt", "run/step5/training_args.bin")
    made(
        tmp_path,
        "run/step5/rng_state_0.pth",
        "run/step5/scheduler.pt",
        "notes.txt",
        "run/.hidden1.pt",
    )
    assert [c.path for c in find_checkpoints(tmp_path).checkpoints] == [
        "run/step5/model.pt",
        "checkpoint-5",
    ]


def test_a_checkpoint_without_a_number_is_listed(tmp_path: Path) -> None:
    made(tmp_path, "best.ckpt", "step3.ckpt")
    found = find_checkpoints(tmp_path)
    assert [c.step for c in found.checkpoints] == [3]
    assert "no step is in its name" in found.other["best.ckpt"]


def test_the_final_model_beside_its_checkpoints(tmp_path: Path) -> None:
    made(tmp_path, "out/model.safetensors", "out/checkpoint-5/model.safetensors")
    found = find_checkpoints(tmp_path / "out")
    assert [(c.run, c.step) for c in found.checkpoints] == [("out", 5)]
    assert list(found.other) == ["model.safetensors"]
    above = find_checkpoints(tmp_path)
    assert [(c.run, c.step) for c in above.checkpoints] == [("out", 5)]
    assert list(above.other) == ["out/model.safetensors"]


def test_links(tmp_path: Path) -> None:
    made(tmp_path / "elsewhere", "step1.pt")
    root = made(tmp_path / "root", "b/step2.pt")
    (root / "a").symlink_to(tmp_path / "elsewhere")
    (root / "b" / "up").symlink_to(root)
    (root / "step9.pt").symlink_to(root / "step9.pt")
    found = find_checkpoints(root)
    assert [(c.run, c.step) for c in found.checkpoints] == [("a", 1), ("b", 2)]
    assert "back to itself" in found.other["step9.pt"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{run}/w{step}", [("a", 3, None), ("b", 20, None)]),
        ("*/w{step}", [("root", 3, None), ("root", 20, None)]),
        ("{run}/w{epoch}", [("a", 3, 3), ("b", 20, 20)]),
        ("{run}/x{step}", []),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, expected: list) -> None:
    found = find_checkpoints(made(tmp_path / "root", "a/w3", "b/w20", "c.pt"), pattern=pattern)
    assert [c[:3] for c in found.checkpoints] == expected


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("{run}/a.pt", "has no {step}"), ("{seed}/{step}.pt", "has the field '{seed}'")],
)
def test_wrong_patterns(tmp_path: Path, pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_checkpoints(tmp_path, pattern=pattern)


def test_a_step_that_no_integer_holds(tmp_path: Path) -> None:
    found = find_checkpoints(made(tmp_path, "step99999999999999999999.pt", "step1.pt"))
    assert [c.step for c in found.checkpoints] == [1]
    assert "too large" in found.other["step99999999999999999999.pt"]
