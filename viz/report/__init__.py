"""What a result is, and one self-contained page of them. This room knows no stage."""
