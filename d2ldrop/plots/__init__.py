"""Plots: curves that grow while a model trains, grids of images, and the chapter's figures."""
