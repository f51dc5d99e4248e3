"""Crowd counting: from ShanghaiTech or custom annotations to a trained counter."""
