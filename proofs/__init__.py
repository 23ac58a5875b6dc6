"""The long proofs. Each says what it did and what it found, and appends it to docs/proofs.md."""
