"""Files of expert maps: those of serving engines, one module per format, and our own."""

from placement.formats.base import MapFormat, SlotFormat, SlotMap
from placement.formats.registry import MAP_FORMATS, guess_map, map_format
from placement.formats.sglang import check_loads

__all__ = [
    "MAP_FORMATS",
    "MapFormat",
    "SlotFormat",
    "SlotMap",
    "check_loads",
    "guess_map",
    "map_format",
]
