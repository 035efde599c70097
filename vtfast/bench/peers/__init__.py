"""Operations as PyTorch users have them, each with the copies it needs: one file a kind."""
