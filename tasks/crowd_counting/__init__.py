"""Crowd counting: from ShanghaiTech's files, or annotations of one's own, to a counter that one can try."""
