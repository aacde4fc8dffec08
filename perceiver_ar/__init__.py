"""Perceiver AR (Hawthorne et al., ICML 2022), and what continues music with it."""
