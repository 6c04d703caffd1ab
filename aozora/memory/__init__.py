"""How a UNet is laid out, streamed and recomputed, so that it trains in little memory."""
