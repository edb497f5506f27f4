"""The demonstration: a small real model, a task it cannot do, and the data that teaches it."""
