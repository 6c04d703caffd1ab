"""The presets that come with Aozora; installed, this folder is the package ``aozora.presets_data``."""
