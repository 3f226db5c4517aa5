"""What a run leaves behind, checked as it is read: a damaged or foreign file is one sentence, never a guess."""
