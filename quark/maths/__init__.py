"""The formulas, one page each: objective, quantiles, advantages, nucleus, n-grams. No model."""
