"""Released guiders and samplers of other libraries held against cfgjax.verify."""
