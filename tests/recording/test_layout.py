"""Which files are checkpoints, of which run and step."""

from pathlib import Path

import pytest

from bayesphase.recording.files import Refused
from bayesphase.recording.folders import open_checkpoint
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


def labels(root: Path) -> list[tuple]:
    return [c[:3] for c in find_checkpoints(root).checkpoints]


@pytest.mark.parametrize("model", ["gpt2", "42", "run_epoch3"])
def test_a_number_in_the_name_of_an_output_folder_hides_no_checkpoints(
    tmp_path: Path, model: str
) -> None:
    out = f"hft/{model}"
    made(tmp_path, f"{out}/model.safetensors")
    made(tmp_path, *(f"{out}/checkpoint-{s}/model.safetensors" for s in (2, 4, 6)))
    found = find_checkpoints(tmp_path)
    assert [c.path for c in found.checkpoints] == [f"{out}/checkpoint-{s}" for s in (2, 4, 6)]
    assert labels(tmp_path) == [(out, s, None) for s in (2, 4, 6)]
    assert list(found.other) == [f"{out}/model.safetensors"]


def test_final_files_take_no_step_from_the_number_of_their_run(tmp_path: Path) -> None:
    names = ("step100", "step200", "final")
    made(tmp_path, *(f"seed{r}/{name}.pt" for r in (1, 2) for name in names))
    assert labels(tmp_path) == [(f"seed{r}", s, None) for r in (1, 2) for s in (100, 200)]
    assert set(find_checkpoints(tmp_path).other) == {"seed1/final.pt", "seed2/final.pt"}


@pytest.mark.parametrize(
    "path",
    ["run_003/best.pt", "last-v1.ckpt", "seed1.pt", "fold=2.pt", "version_4/last.ckpt", "rank0.pt",
     "epochs100/best.pt", "gpt2/model.safetensors"],
)  # fmt: skip
def test_numbers_that_are_no_steps(tmp_path: Path, path: str) -> None:
    found = find_checkpoints(made(tmp_path, path))
    assert not found.checkpoints
    assert "no step is in its name" in found.other[path]


@pytest.mark.parametrize(
    ("paths", "run"),
    [
        (["step{}/seed0.pt"], "seed0"),
        (["a/{}/seed0.pt"], "a/seed0"),
        (["seed0_{}.pt"], "seed0"),
        (["iter_000{}/mp_rank_00/model_optim_rng.pt"], "root"),
        (["a/checkpoint-{0}/global_step{0}/mp_rank_00_model_states.pt"], "a"),
        (["checkpoint-{}/pytorch_model/mp_rank_00_model_states.pt"], "root"),
        # both of one step: the outer folder is the checkpoint
        (["a/step{0}/model.safetensors", "a/step{0}/step{0}/model.safetensors"], "a"),
        (["lr0.1_epochs100/model_{}.pt"], "lr0.1_epochs100"),
        (["step{}_acc=93.pt"], "root"),
        (["acc5/step{}-tokens4B/model.safetensors"], "acc5"),
        (["split1_step{}.pt"], "split1"),
        (["loss1-step{}.pt"], "loss1"),
        (["zero_shot_step{}.pt"], "zero_shot"),
        (["optimal_step{}.pt"], "optimal"),
    ],
)
def test_a_step_in_either_name_and_the_run_of_the_rest(
    tmp_path: Path, paths: list[str], run: str
) -> None:
    made(tmp_path / "root", *(path.format(s) for path in paths for s in (1000, 2000)))
    assert labels(tmp_path / "root") == [(run, 1000, None), (run, 2000, None)]
    assert not find_checkpoints(tmp_path / "root").other


def test_parts_of_a_model_are_not_runs(tmp_path: Path) -> None:
    made(tmp_path, *(f"iter_5/mp_rank_0{i}/model_optim_rng.pt" for i in (0, 1)))
    assert labels(tmp_path) == [(tmp_path.name, 5, None)] * 2


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("epoch=1-val_loss=0.8.ckpt", "epoch=2-val_loss=0.8.ckpt"), [("", 1, 1), ("", 2, 2)]),
        (
            ("epoch=3-step=400-val_loss=0.80.ckpt", "epoch=4-step=500-val_loss=1e-05.ckpt"),
            [("", 400, 3), ("", 500, 4)],
        ),
        # a "/" in the name of a metric makes a folder
        (("epoch1-val/loss=0.8.ckpt", "epoch2-val/loss=0.8.ckpt"), [("val", 1, 1), ("val", 2, 2)]),
        (("step=400-epoch=1.ckpt", "step=800-epoch=2.ckpt"), [("", 400, 1), ("", 800, 2)]),
        (("epoch1/epoch=1-step=9.ckpt", "epoch2/epoch=2-step=18.ckpt"), [("", 9, 1), ("", 18, 2)]),
        (("step1000-tokens4B.pt", "step2000-tokens8B.pt"), [("", 1000, None), ("", 2000, None)]),
        (("epoch=1-mIoU=0.5.ckpt", "epoch=2-mIoU=0.61.ckpt"), [("mIoU", 1, 1), ("mIoU", 2, 2)]),
        (("step1_acc90.pt", "step2_acc91.pt"), [("acc", 1, None), ("acc", 2, None)]),
        # numbers that tell runs apart
        (("seed1-step1.pt", "seed2-step2.pt"), [("seed1", 1, None), ("seed2", 2, None)]),
        (("lr=0.1-step1.pt", "lr=0.2-step1.pt"), [("lr=0.1", 1, None), ("lr=0.2", 1, None)]),
        (("loss1-step1.pt", "loss2-step1.pt"), [("loss1", 1, None), ("loss2", 1, None)]),
    ],
)  # fmt: skip
def test_what_was_measured_at_a_step_makes_no_run(
    tmp_path: Path, names: tuple[str, ...], expected: list
) -> None:
    made(tmp_path / "root", *names)
    assert labels(tmp_path / "root") == [(run or "root", *rest) for run, *rest in expected]


def test_labels_stay_when_others_come(tmp_path: Path) -> None:
    made(tmp_path, *(f"run1/model_step{s}.pt" for s in (0, 10)), "seed1-step5.pt")
    before = find_checkpoints(tmp_path).checkpoints
    assert [c[:2] for c in before] == [("run1", 0), ("run1", 10), ("seed1", 5)]
    made(tmp_path, "run1/ema_step10.pt", "seed2-step5.pt")
    after = find_checkpoints(tmp_path).checkpoints
    assert [c[:2] for c in after if c not in before] == [("run1/ema", 10), ("seed2", 5)]
    assert set(before) < set(after)


def test_two_plain_names_in_one_folder_are_two_runs(tmp_path: Path) -> None:
    made(tmp_path, *(f"a/step5/{n}.pt" for n in ("model", "weights")))
    assert labels(tmp_path) == [("a/model", 5, None), ("a/weights", 5, None)]


def test_what_is_still_being_written(tmp_path: Path) -> None:
    made(tmp_path, "tmp-checkpoint-3/model.safetensors", "step5.pt.tmp", "step6.tmp/model.pt")
    made(tmp_path, "checkpoint-7/model.safetensors.tmp")
    assert find_checkpoints(tmp_path) == ([], {})
    assert not find_checkpoints(tmp_path, pattern="*-{step}/*").checkpoints


def test_shards_are_no_checkpoints_of_their_own(tmp_path: Path) -> None:
    made(tmp_path, *(f"checkpoint-2/model-0000{i}-of-00002.safetensors" for i in (1, 2)))
    made(tmp_path, "final/model-00001-of-00002.safetensors", "checkpoint-1/model.safetensors")
    found = find_checkpoints(tmp_path)
    assert [c[1::2] for c in found.checkpoints] == [(1, "checkpoint-1"), (2, "checkpoint-2")]
    assert list(found.other) == ["final/model-00001-of-00002.safetensors"]
    with pytest.raises(Refused, match="shards whose index is not there"):
        open_checkpoint(tmp_path / "checkpoint-2")


@pytest.mark.parametrize("run", ["split1", "vit16", "resnet_batch128", "unit3", "init2"])
def test_steps_are_not_read_from_within_words(tmp_path: Path, run: str) -> None:
    made(tmp_path, *(f"{run}_epoch{e}.pt" for e in (0, 1, 2)))
    assert labels(tmp_path) == [(run, e, e) for e in (0, 1, 2)]


def test_what_holds_no_weights_by_its_name_is_listed(tmp_path: Path) -> None:
    made(tmp_path, "optimizer_adam_step100.pt", "scheduler-step100.pt", "optimizer.pt")
    found = find_checkpoints(tmp_path)
    assert not found.checkpoints
    assert set(found.other) == {"optimizer_adam_step100.pt", "scheduler-step100.pt"}
    assert all("holds no weights, by its name" in reason for reason in found.other.values())
