from __future__ import annotations

from hypothesis import settings

# Busy machines are slow, not wrong.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
