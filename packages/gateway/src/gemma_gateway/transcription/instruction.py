"""What the model is asked to do with a piece of audio. Change it to change the prompt."""

from gemma_gateway.schema.transcription import SpeechRequest, TranscriptionRequest


def instruction(body: SpeechRequest) -> str:
    """The text before the audio.

    Gemma 3n was trained to transcribe speech, and to translate it, when it is asked so in a sentence.
    """
    if isinstance(body, TranscriptionRequest):
        language = f" {body.language.title()}" if body.language else ""
        text = f"Transcribe the{language} speech in this audio."
    else:
        text = "Translate the speech in this audio into English."
    return f"{text}\nContext: {body.prompt}" if body.prompt else text
