"""README, its Chinese edition and the pages behind it, as far as they are made from data: `make readme`."""
