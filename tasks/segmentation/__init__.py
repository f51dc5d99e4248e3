"""Semantic segmentation: from a VOCdevkit to a segmentor of mmsegmentation with an EAN backbone."""
