"""What EMPGTrainer refuses, when, and in which words."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("trl", reason="TRL is not installed")

import tiny_trl as tiny
from trl import GRPOConfig, GRPOTrainer

from empg.integrations.trl import EMPGConfig, EMPGMixin, EMPGOptions, EMPGTrainer


def build(folder, kind=EMPGTrainer, **changes):
    config = changes.pop("args", None) or tiny.arguments(GRPOConfig, folder)
    return kind(
        model=tiny.model(), reward_funcs=tiny.reward, args=config, train_dataset=tiny.prompts(),
        processing_class=tiny.tokenizer(), **changes
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"kay": 1.0}, ValueError, "unknown option 'kay'; the options are k, k_f"),
        ({"k": -1.0}, ValueError, "k must be finite and at least 0, not -1.0"),
        ({"zeta": float("nan")}, ValueError, "zeta must be finite"),
        ({"k": "1"}, ValueError, "k must be a number, not '1'"),
        ({"shape": "round"}, ValueError, "shape must be one of"),
        ({"quantile": (0.9, 0.1)}, ValueError, "two rising levels"),
        ({"quantile": 3}, ValueError, "two rising levels"),
        ({"center": 1}, ValueError, "center must be true or false"),
        (3, TypeError, "EMPGOptions, a dict of options, True or False, not int"),
    ],
)
def test_bad_options_are_named_at_construction(tmp_path, given, error, words):
    with pytest.raises(error, match=words.replace("(", r"\(")):
        build(tmp_path, empg=given)


def test_bad_fields_of_the_configuration_are_named(tmp_path):
    with pytest.raises(ValueError, match="zeta must be finite and at least 0, not -0.1"):
        tiny.arguments(EMPGConfig, tmp_path, empg_zeta=-0.1)
    with pytest.raises(ValueError, match=r"both from empg= and from EMPGConfig"):
        build(tmp_path, args=tiny.arguments(EMPGConfig, tmp_path, empg_k=2.0), empg={"k": 3.0})


def test_a_field_of_the_configuration_given_to_the_trainer_is_told(tmp_path):
    with pytest.raises(TypeError, match=r"empg_k is a field of EMPGConfig; to the trainer give empg=\{'k'"):
        build(tmp_path, empg_k=2.0)


def test_numbers_of_numpy_are_numbers():
    assert EMPGOptions(k=np.float32(0.5), zeta=np.int64(0)) == EMPGOptions(k=0.5, zeta=0.0)


def test_a_loss_that_may_read_advantages_per_row_is_refused(tmp_path):
    class Own(GRPOTrainer):
        def _compute_loss(self, model, inputs):
            return super()._compute_loss(model, inputs)

    class Refused(EMPGMixin, Own):
        pass

    class Accepted(EMPGMixin, Own):
        empg_per_token_loss = True

    with pytest.raises(TypeError, match=r"Own has a _compute_loss of its own.*empg_per_token_loss = True"):
        build(tmp_path, Refused)
    assert build(tmp_path, Accepted).empg_options == EMPGOptions()
    with pytest.raises(TypeError, match="modulates the advantages of GRPOTrainer"):
        type("NoTrainer", (EMPGMixin,), {})()
    with pytest.raises(TypeError, match=r"Late: EMPGMixin after the trainer has no effect; write class Late\(EMPGMixin"):
        type("Late", (Own, EMPGMixin), {})


def test_liger_is_refused_where_it_computes_the_loss(tmp_path):
    from empg.integrations.trl.host import check_arguments

    class Fused:
        def compute_liger_loss(self):
            """As TRL before 1.14."""

    liger = type("Arguments", (), {"use_liger_kernel": True})()
    with pytest.raises(ValueError, match="set use_liger_kernel=False, or use TRL >= 1.14"):
        check_arguments(Fused, liger)
    check_arguments(Fused, type("Arguments", (), {"use_liger_kernel": False})())
    check_arguments(object, liger)


def test_a_luspo_that_averages_over_padding_is_refused(monkeypatch):
    from empg.integrations.trl import host

    luspo = type("Arguments", (), {"loss_type": "luspo"})()
    monkeypatch.setattr(host, "version", lambda _: "1.9.2")
    with pytest.raises(ValueError, match=r"luspo.*of TRL 1.9.2 .*use TRL >= 1.10, or another loss_type"):
        host.check_arguments(object, luspo)
    host.check_arguments(object, type("Arguments", (), {"loss_type": "dapo"})())
    monkeypatch.setattr(host, "version", lambda _: "1.10.0")
    host.check_arguments(object, luspo)


@pytest.mark.parametrize(
    ("installed", "words"),
    [(None, "TRL is not installed: pip install 'empg\\[trl\\]'"), ("0.24.0", "TRL 0.24.0 is installed: pip install -U")],
)
def test_a_missing_or_old_trl_is_told(monkeypatch, installed, words):
    from importlib.metadata import PackageNotFoundError

    from empg.integrations.trl import host

    def version(_):
        if installed is None:
            raise PackageNotFoundError("trl")
        return installed

    monkeypatch.setattr(host, "version", version)
    with pytest.raises(ImportError, match=words):
        host.check_installed()


def test_nothing_is_imported_that_was_not_asked_for():
    code = (
        "import sys, empg, empg.integrations\n"
        "print(sorted({'torch', 'trl', 'transformers', 'accelerate'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
