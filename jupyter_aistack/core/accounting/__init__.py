"""What was used: attribution, charges, reports and advice."""
