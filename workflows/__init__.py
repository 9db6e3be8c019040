"""Prototypes, screening, hull, selection, and the FireWorks glue around them."""
