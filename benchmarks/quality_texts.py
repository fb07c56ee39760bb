"""The fixed texts of the quality benchmark, written for it."""

TEXTS = (
    "The harbour was quiet when the ferry arrived. Two men in yellow coats threw the ropes "
    "ashore, and a dog barked at the gulls. Nobody had expected the boat before noon, because "
    "the night had been stormy and the radio had warned of high waves. The captain said that he "
    "had simply waited behind the island until the wind turned, and then had made good use of it.",
    "To make a simple bread you need flour, water, salt and yeast. Mix five hundred grams of "
    "flour with three hundred and fifty grams of water, add ten grams of salt and a little "
    "yeast, and let the dough rest for an hour. Fold it twice, shape it into a ball, and bake it "
    "in a hot oven for forty minutes. The bread is done when it sounds hollow if you knock on "
    "its underside.",
    "A queue is a list from which the oldest element is taken first. It is used wherever work "
    "arrives faster than it can be done: printers, web servers and the checkout of a supermarket "
    "have queues. If the queue grows without a limit, every customer waits longer than the one "
    "before, so a good system refuses new work early instead of accepting everything and failing late.",
    "def mean(numbers):\n    total = 0.0\n    for number in numbers:\n        total += number\n    "
    'if not numbers:\n        raise ValueError("the list is empty")\n    return total / '
    "len(numbers)\n\n\nprint(mean([1, 2, 3, 4]))\n",
    "In the second century the library had more than a hundred thousand scrolls. Scholars came "
    "from every port of the sea to copy them, and each ship that landed had to lend its books "
    "until the scribes were finished. What we know of the geometry, the medicine and the poetry "
    "of that time, we know because some of these copies survived in other cities.",
    "Question: Which day comes after Monday? Answer: Tuesday. Question: What is seven plus "
    "eight? Answer: Fifteen. Question: Which colour do you get when you mix blue and yellow? "
    "Answer: Green. Question: How many legs does a spider have? Answer: Eight. Question: What is "
    "the capital of France? Answer: Paris.",
    "There is a red circle on the left and a blue square on the right. Below the circle is a "
    "small green triangle. I see three shapes: a circle, a square and a triangle. The square is "
    "larger than the triangle. The star is missing. Hello! I am a small demo model. I can "
    "describe pictures of coloured shapes.",
    "Dear Ms Okafor, thank you for your letter of 3 March. We are sorry that the lamp arrived "
    "broken. A new one was sent today and should reach you within four days; you need not return "
    "the old one. If the second lamp shows any fault, please call us at the number below between "
    "nine and five. Yours sincerely, the customer service.",
)
