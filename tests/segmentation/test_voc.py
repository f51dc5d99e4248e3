import numpy as np
import pytest
from PIL import Image

from tasks.segmentation.voc import CLASSES, as_image, class_pixels, colours, constant_answer, find_voc, read_mask

from .drawn import draw, write_list, write_pair, write_sbd, write_voc


def texts(found):
    return [f"{path.name}: {text}" for path, text in found.problems]


def test_names_and_colours_are_mmsegmentations():
    pytest.importorskip("mmcv")
    voc = pytest.importorskip("mmseg.datasets").PascalVOCDataset
    assert list(CLASSES) == list(voc.METAINFO["classes"])
    assert colours()[:21].tolist() == voc.METAINFO["palette"]


@pytest.mark.parametrize("below", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_the_devkit_is_found_from_above_or_inside(tmp_path, below):
    write_voc(tmp_path, (3, 2))
    found = find_voc(tmp_path / below)
    assert {name: len(images) for name, images in found.lists.items()} == {"train": 3, "val": 2}
    assert (len(found.pairs), found.problems) == (5, [])


def test_masks_with_borders_are_preferred(tmp_path):
    devkit = write_voc(tmp_path, (2, 1))
    write_pair(devkit, "2007_000000", 0, "SegmentationClassAug")
    assert {pair.mask.parent.name for pair in find_voc(tmp_path).pairs} == {"SegmentationClass"}


def test_the_sample_with_masks_in_segmentation_class_aug_only_is_read(tmp_path):
    write_voc(tmp_path, (2, 1), folder="SegmentationClassAug")
    assert len(find_voc(tmp_path).pairs) == 3


def test_sbd_is_merged_without_images_of_val(tmp_path):
    devkit = write_voc(tmp_path, (3, 2))  # 0 to 2 and 3 to 4
    write_sbd(tmp_path, devkit, ["2007_000001", "2007_000004", "2008_000007", "2008_000008"])
    found = find_voc(tmp_path)
    assert found.lists["trainaug"] == [*found.lists["train"], "2008_000007", "2008_000008"]
    assert found.problems == []  # SBD has images of val, as everyone knows
    masks = {pair.name: pair.mask.suffix for pair in found.pairs}
    assert (masks["2007_000001"], masks["2008_000007"]) == (".png", ".mat")


def test_all_validation_images_that_any_list_names_are_kept_out_of_sbd(tmp_path):
    devkit = write_voc(tmp_path, (2, 1))
    write_sbd(tmp_path, devkit, ["2008_000007", "2008_000008"])
    write_list(devkit, "trainval", ["2007_000000", "2007_000001", "2007_000002", "2008_000007"])
    assert find_voc(tmp_path).lists["trainaug"] == ["2007_000000", "2007_000001", "2008_000008"]
    for name in ("val", "trainval"):
        (devkit / f"ImageSets/Segmentation/{name}.txt").unlink()
    assert "trainaug" not in find_voc(tmp_path).lists  # it cannot be known which are


def test_a_mask_of_another_size_is_refused_before_it_is_decoded(tmp_path):
    Image.new("RGB", (12000, 9000)).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=r"is 12000 x 9000 pixels, its image 80 x 60 \(upright\)"):
        read_mask(tmp_path / "mask.png", (60, 80))


def test_a_training_list_with_images_of_val_is_said_and_cleaned(tmp_path):
    devkit = write_voc(tmp_path, (3, 2))
    write_list(devkit, "aug", ["2007_000001", "2007_000003"])
    found = find_voc(tmp_path)
    assert texts(found) == ["aug.txt: has 1 images of val, the first 2007_000003; excluded from trainaug"]
    assert found.lists["trainaug"] == found.lists["train"]


def test_missing_images_masks_and_strange_names_are_said_by_file(tmp_path):
    devkit = write_voc(tmp_path, (4, 1))
    (devkit / "JPEGImages/2007_000000.jpg").unlink()
    (devkit / "SegmentationClass/2007_000001.png").unlink()
    write_list(devkit, "train", [*(f"2007_{n:06d}" for n in range(4)), "2007_000003", "../../etc/passwd", ""])
    found = find_voc(tmp_path)
    assert found.lists["train"] == ["2007_000002", "2007_000003"]
    assert sorted(texts(found)) == [
        "2007_000000.jpg: is listed but missing; skipped",
        "2007_000001.jpg: has no mask in SegmentationClass or SegmentationClassAug; skipped",
        "train.txt: lists '../../etc/passwd', expected image names without folder and suffix; skipped",
        "train.txt: lists 1 images more than once; each is used once",
    ]


def test_what_is_no_devkit_says_what_is_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no VOC segmentation data; expected VOC2012/\{JPEGImages"):
        find_voc(tmp_path)
    devkit = write_voc(tmp_path, (1, 1))
    for name in ("train", "val"):
        (devkit / f"ImageSets/Segmentation/{name}.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither train.txt nor val.txt"):
        find_voc(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no SBD"):
        find_voc(tmp_path, tmp_path / "nowhere")


# ---------------------------------------------------------------- masks


@pytest.fixture
def labels():
    found = draw(1)[1]
    found[:21, 0] = range(21)
    return found


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "RGBA"])
def test_masks_of_any_kind_become_labels(labels, tmp_path, mode):
    image = Image.fromarray(labels) if mode == "L" else as_image(labels).convert(mode)
    image.save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), labels)


def test_masks_of_sbd_become_labels(tmp_path):
    devkit = write_voc(tmp_path, (1, 1))
    folder = write_sbd(tmp_path, devkit, ["2008_000007"])
    assert np.array_equal(read_mask(folder / "2008_000007.mat"), draw(7, border=False)[1])


def test_colours_of_no_class_are_refused(tmp_path, labels):
    pixels = np.array(as_image(labels).convert("RGB"))
    pixels[3, 3] = (1, 2, 3)
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=r"colors that do not belong to a VOC class: \(1, 2, 3\)"):
        read_mask(tmp_path / "mask.png")


def test_labels_of_no_class_are_refused(tmp_path, labels):
    labels[0, 1] = 21
    Image.fromarray(labels).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=r"labels other than 0 to 20 and 255 \(ignored\): 21"):
        read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("name", ["mask.png", "mask.mat"])
def test_damaged_masks_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n nothing of the kind")
    with pytest.raises(ValueError, match="cannot be read as a mask"):
        read_mask(tmp_path / name)


def test_a_photograph_is_no_mask(tmp_path):
    draw(0)[0].convert("CMYK").save(tmp_path / "mask.tif")
    (tmp_path / "mask.tif").rename(tmp_path / "mask.png")
    with pytest.raises(ValueError, match="cannot be read as a mask"):
        read_mask(tmp_path / "mask.png")


def test_the_constant_answer_is_that_of_the_metric():
    truth = np.array([0] * 60 + [3] * 30 + [7] * 10 + [255] * 5, np.uint8)
    counts = class_pixels(truth)
    assert (sum(counts), counts[3]) == (100, 30)
    answer = constant_answer(counts)
    assert answer == pytest.approx({"mIoU": 60 / 3, "mAcc": 100 / 3, "aAcc": 60})
