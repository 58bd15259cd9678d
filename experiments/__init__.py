"""Commands on top of cfgjax: prepare, train, sample, evaluate. Presets live here; the library knows none of them."""
