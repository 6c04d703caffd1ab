"""The presets that come with Aozora; installed, this is the package ``aozora.presets_data``."""
