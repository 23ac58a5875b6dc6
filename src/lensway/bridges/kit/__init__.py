"""What two or more bridges need: addresses, deadlines, failures and loading of drivers."""
