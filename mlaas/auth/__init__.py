"""Who is calling: API keys and the principals behind them; deny by default."""
