"""torchvision works beside a torch with or without CUDA, and real import errors are not hidden."""

import pytest
import torch

from steadydescent.dataset_shift import torchvision_shim
from steadydescent.dataset_shift.torchvision_shim import import_torchvision


def test_torchvision_imports_and_a_second_import_is_the_same_module():
    torchvision = import_torchvision()
    assert import_torchvision() is torchvision
    image = torchvision.transforms.functional.hflip(torch.arange(6).reshape(1, 2, 3))
    assert image.tolist() == [[[2, 1, 0], [5, 4, 3]]]
    assert torchvision.models.get_model("squeezenet1_0", num_classes=7)(
        torch.zeros(1, 3, 67, 67)
    ).shape == (1, 7)


def test_another_import_error_is_not_hidden_and_not_tried_again(monkeypatch):
    tried = []

    def fail(name):
        tried.append(name)
        raise RuntimeError("another reason")

    monkeypatch.setattr(torchvision_shim.importlib, "import_module", fail)
    with pytest.raises(RuntimeError, match="another reason"):
        import_torchvision()
    assert tried == ["torchvision"]
