"""Two images, and their heads in every annotation format."""

import json

import h5py
import numpy as np
from PIL import Image
from scipy.io import savemat

from .drawn import write_truth

SIZE = (60, 40)  # width, height
HEADS = {"a.jpg": [[10.0, 20.0], [30.5, 5.0]], "b.png": []}


def write_images(folder, names=HEADS, size=SIZE):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(folder / name)
    return folder


def coco(boxes=False):
    """One file for all images."""
    annotations = []
    for image, heads in enumerate(HEADS.values()):
        for x, y in heads:
            mark = {"bbox": [x - 4, y - 3, 8, 6]} if boxes else {"keypoints": [x, y, 2], "num_keypoints": 1}
            annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": 1, **mark})
    images = [
        {"id": n, "file_name": name, "width": SIZE[0], "height": SIZE[1]} for n, name in enumerate(HEADS)
    ]  # the first id is 0
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}


def labelme(name, heads, kind="point"):
    corners = {
        "point": lambda x, y: [[x, y]],
        "circle": lambda x, y: [[x, y], [x + 3, y]],
        "rectangle": lambda x, y: [[x - 4, y - 3], [x + 4, y + 3]],
    }[kind]
    shapes = [{"label": "head", "shape_type": kind, "points": corners(x, y)} for x, y in heads]
    size = {"imageWidth": SIZE[0], "imageHeight": SIZE[1]}
    return {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": name, "imageData": None, **size}


def cvat(boxes=False):
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations><version>1.1</version>"]
    for n, (name, heads) in enumerate(HEADS.items()):
        lines.append(f'<image id="{n}" name="{name}" width="{SIZE[0]}" height="{SIZE[1]}">')
        for x, y in heads:
            corners = f'xtl="{x - 4}" ytl="{y - 3}" xbr="{x + 4}" ybr="{y + 3}"'
            mark = f"<box {corners}" if boxes else f'<points points="{x},{y}"'
            lines.append(f'{mark} label="head" occluded="0"></{"box" if boxes else "points"}>')
        lines.append("</image>")
    return "\n".join([*lines, "</annotations>"])


def save_v73(path, variables):
    """A .mat file of version 7.3: arrays are stored transposed; cells as references, structures as groups."""
    with h5py.File(path, "w", userblock_size=512) as file:
        parts = file.create_group("#refs#")

        def put(group, name, value):
            if isinstance(value, dict):
                inner = group.create_group(name)
                inner.attrs["MATLAB_class"] = np.bytes_("struct")
                for key, part in value.items():
                    put(inner, key, part)
            elif isinstance(value, list):
                names = [f"{len(parts) + k}" for k in range(len(value))]
                for each, part in zip(names, value, strict=True):
                    put(parts, each, part)
                references = np.array([[parts[each].ref] for each in names], h5py.ref_dtype)
                group.create_dataset(name, data=references).attrs["MATLAB_class"] = np.bytes_("cell")
            elif isinstance(value, str):
                stored = group.create_dataset(name, data=np.array([[ord(char)] for char in value], np.uint16))
                stored.attrs["MATLAB_class"] = np.bytes_("char")
            elif np.size(value) == 0:
                stored = group.create_dataset(name, data=np.array(np.shape(value), np.uint64))
                stored.attrs["MATLAB_class"], stored.attrs["MATLAB_empty"] = np.bytes_("double"), 1
            else:
                packed = {"compression": "gzip", "shuffle": np.size(value) > 6} if np.size(value) > 3 else {}
                stored = group.create_dataset(name, data=np.asarray(value).T, **packed)
                stored.attrs["MATLAB_class"] = np.bytes_("double")

        for name, value in variables.items():
            put(file, name, value)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return path


def write_table(folder, name, header="image,x,y", delimiter=","):
    lines = [header.replace(",", delimiter)]
    for image, heads in HEADS.items():
        lines += [delimiter.join([image, str(x), str(y)]) for x, y in heads] or [f"{image}{delimiter * 2}"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(lines))


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_per_image(write):
    """A writer of a file per image."""

    def each(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, heads in HEADS.items():
            write(folder, name, name.partition(".")[0], np.array(heads).reshape(-1, 2))

    return each


def _jhu(folder, name, stem, heads):
    (folder / "gt").mkdir(exist_ok=True)
    (folder / "gt" / f"{stem}.txt").write_text("".join(f"{x} {y} 8 9 1 0\n" for x, y in heads))
    with (folder / "image_labels.txt").open("a") as file:
        file.write(f"{stem},{len(heads)},street,0,0\n")


def _nwpu(folder, name, stem, heads):
    content = {"img_id": f"{stem}.jpg", "human_num": len(heads), "points": heads.tolist(), "boxes": []}
    write_json(folder / "jsons" / f"{stem}.json", content)


#: By name: the format, and a function that writes it into a folder.
WRITERS = {
    "csv": ("csv", lambda folder: write_table(folder, "p.csv")),
    "csv filename": ("csv", lambda folder: write_table(folder, "p.csv", "filename,x,y")),
    "csv tabs": ("csv", lambda folder: write_table(folder, "p.tsv", delimiter="\t")),
    "csv tabs in .txt": ("csv", lambda folder: write_table(folder, "p.txt", delimiter="\t")),
    "csv semicolons": ("csv", lambda folder: write_table(folder, "p.csv", "File_Name,X,Y", ";")),
    "json": ("json", lambda folder: write_json(folder / "p.json", HEADS)),
    "coco keypoints": ("coco", lambda folder: write_json(folder / "p.json", coco())),
    "coco boxes": ("coco", lambda folder: write_json(folder / "p.json", coco(boxes=True))),
    **{
        f"labelme {kind}": (
            "labelme",
            write_per_image(
                lambda folder, name, stem, heads, kind=kind: write_json(
                    folder / f"{stem}.json", labelme(name, heads.tolist(), kind)
                )
            ),
        )
        for kind in ("point", "circle", "rectangle")
    },
    "cvat points": ("cvat", lambda folder: folder.mkdir(exist_ok=True) or (folder / "p.xml").write_text(cvat())),
    "cvat boxes": ("cvat", lambda folder: folder.mkdir(exist_ok=True) or (folder / "p.xml").write_text(cvat(True))),
    "jhu": ("jhu", write_per_image(_jhu)),
    "nwpu": ("nwpu", write_per_image(_nwpu)),
    "qnrf": ("qnrf", write_per_image(lambda folder, _, stem, h: savemat(folder / f"{stem}_ann.mat", {"annPoints": h}))),
    "qnrf 7.3": (
        "qnrf",
        write_per_image(lambda folder, _, stem, h: save_v73(folder / f"{stem}_ann.mat", {"annPoints": h})),
    ),
    "mat matrix": ("mat", write_per_image(lambda folder, _, stem, h: savemat(folder / f"{stem}.mat", {"any": h}))),
    "mat image_info": ("mat", write_per_image(lambda folder, _, stem, h: write_truth(folder / f"GT_{stem}.mat", h))),
    "mat image_info 7.3": (
        "mat",
        write_per_image(
            lambda folder, _, stem, h: save_v73(
                folder / f"{stem}.mat",
                {"image_info": [{"location": h, "number": np.array([[len(h)]], float)}], "name": "x"},
            )
        ),
    ),
}
