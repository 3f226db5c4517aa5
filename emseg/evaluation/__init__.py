"""From predictions to scores: what is learned from training and validation sections, then what test sections say."""
