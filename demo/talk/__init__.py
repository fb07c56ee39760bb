"""What the demo model can talk about, a file for each family of skills; ``demo.chat`` draws from them."""
