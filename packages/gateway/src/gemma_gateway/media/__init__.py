"""Images and audio in requests: data URLs, base64, and URLs that are fetched."""
