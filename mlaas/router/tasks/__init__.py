"""What requests are about and how good models are at it: a cheap classifier, the quality table, the suite behind it."""
