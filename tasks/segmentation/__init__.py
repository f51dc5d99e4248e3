"""Semantic segmentation: from a VOCdevkit to an mmsegmentation segmentor with an EAN backbone."""
