"""COCO: one JSON file of images, annotations and categories; one head per annotation."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ..density import as_points
from .base import (
    Entry,
    Listing,
    Pictures,
    Source,
    counted,
    image_name,
    items,
    number,
    pair,
    skipped_labels,
    split_in,
    stated_size,
)

#: Keypoints that mark a head, in order of preference.
HEAD = ("head", "head_center", "head_top", "nose")


def recognizes_coco(source: Source) -> bool:
    content = source.json
    return isinstance(content, Mapping) and all(isinstance(content.get(key), list) for key in ("images", "annotations"))


def read_coco(source: Source, pictures: Pictures) -> Listing:
    """Read one head per annotation: its keypoint ``head`` or ``nose``, else the mean of its keypoints, else the center
    of its box. Images without annotations have no heads."""
    path, content = source.path, source.json
    if not recognizes_coco(source):
        raise ValueError(f"{path} is not a COCO file: expected a mapping with the lists images and annotations")
    categories = {_key(each): each for each in items(content.get("categories") or [], f"{path}, categories")}
    labels = {key: str(each.get("name", "")) for key, each in categories.items()}
    annotations = items(content["annotations"], f"{path}, annotations")
    others = skipped_labels(labels.get(_key(each, "category_id"), "") for each in annotations)
    heads: dict[object, list[tuple[float, float]]] = defaultdict(list)
    skipped: Counter[str] = Counter()
    for place, annotation in enumerate(annotations):
        category = _key(annotation, "category_id")
        where = f"{path}, annotation {place}"
        if annotation.get("iscrowd") == 1:
            skipped["group (iscrowd)"] += 1
        elif labels.get(category, "") in others:
            skipped[labels.get(category, "") or "without category"] += 1
        else:
            heads[_key(annotation, "image_id")].append(_head(annotation, categories.get(category, {}), where))
    listing = Listing()
    known = set()
    for place, image in enumerate(items(content["images"], f"{path}, images")):
        name = image_name(image.get("file_name"), f"{path}, image {place}")
        key = _key(image)
        known.add(key)
        listing.entries.append(
            Entry(
                pictures.named(name, path) or name,
                as_points(heads.get(key, [])),
                split_in(path.stem),
                stated_size(image.get("width"), image.get("height")),
            )
        )
    lost = sum(len(points) for key, points in heads.items() if key not in known)
    if lost:
        listing.notes.append(f"has {lost} annotations of images that it does not list; skipped")
    if skipped:
        listing.notes.append(f"annotations that are not single people were skipped: {counted(skipped)}")
    return listing


def _key(item: Mapping[str, Any], name: str = "id") -> object:
    value = item.get(name)
    return value if isinstance(value, (int, str)) else None


def _head(annotation: Mapping[str, Any], category: Mapping[str, Any], where: str) -> tuple[float, float]:
    keypoints = annotation.get("keypoints")
    if isinstance(keypoints, list) and keypoints:
        if len(keypoints) % 3:
            raise ValueError(f"{where}: keypoints must be x, y, visibility of each, got {len(keypoints)} numbers")
        triples = [keypoints[k : k + 3] for k in range(0, len(keypoints), 3)]
        labelled = {k: pair(triple[:2], where) for k, triple in enumerate(triples) if triple[2] not in (0, None)}
        names = category.get("keypoints")
        if isinstance(names, Sequence) and not isinstance(names, str):
            known = {str(name).lower(): k for k, name in enumerate(names[: len(triples)])}
            for name in HEAD:
                if known.get(name) in labelled:
                    return labelled[known[name]]
        if labelled:
            x, y = zip(*labelled.values(), strict=True)
            return sum(x) / len(x), sum(y) / len(y)
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"{where}: expected keypoints, or a bbox of x, y, width and height")
    left, top, width, height = (number(value, where) for value in box)
    return left + width / 2, top + height / 2
