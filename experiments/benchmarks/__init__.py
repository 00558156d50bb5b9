"""Figures that `topomoe bench` reports, a module per topic."""
