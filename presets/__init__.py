"""The presets that come with Aozora; once installed, the package ``aozora.presets_data``."""
