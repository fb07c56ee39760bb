"""Word lists."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


COPY = _words(
    """
    apple banana cherry lemon orange grape melon pear plum peach bread butter cheese milk honey sugar salt
    pepper soup rice corn bean carrot potato tomato onion cat dog horse cow sheep goat pig mouse rabbit fox
    wolf bear lion tiger monkey zebra whale shark fish frog snake bird eagle owl duck goose hen bee ant
    spider tree flower grass leaf root river lake sea ocean island mountain hill valley forest desert beach
    sand stone rock iron gold silver copper glass paper wood house door window roof wall floor table chair
    bed lamp clock book pen pencil letter word page story song music drum piano guitar violin flute ball
    game kite toy doll train car bus bike boat ship plane rocket moon sun star cloud rain snow wind storm
    fire water earth light shadow morning evening night summer winter spring autumn happy little big small
    green yellow purple silent quick slow brave clever gentle funny hello world peace friend
    """
)
NAMES = _words(
    """
    Ann Ben Carl Dana Eva Finn Gina Hans Ida Jack Kate Leo Mia Nina Oscar Paul Quinn Rosa Sam Tom Uma Vera
    Will Xenia Yara Zoe Alice Bob Clara David Emma Frank Grace Henry Iris James Karen Lucy Mark Nora Olga
    Peter Rachel Simon Tina Victor Wendy Adam Bella Chloe Daniel Ella Felix Hanna Isaac Julia Kevin Laura
    Max Noah Omar Priya Ravi Sara Theo Ursula Vikram Anna Bruno Lena Maria Jonas Amir Chen Yuki Fatima Diego
    Elena Ivan
    """
)
CITIES = (
    *_words(
        """
        Paris Rome London Berlin Madrid Vienna Prague Lisbon Athens Dublin Oslo Stockholm Helsinki
        Copenhagen Warsaw Budapest Zurich Geneva Milan Naples Venice Florence Barcelona Seville Porto Munich
        Hamburg Cologne Amsterdam Brussels Moscow Kyiv Istanbul Cairo Lagos Nairobi Casablanca Dubai Delhi
        Mumbai Tokyo Osaka Kyoto Seoul Beijing Shanghai Singapore Bangkok Hanoi Manila Jakarta Sydney
        Melbourne Auckland Toronto Montreal Vancouver Chicago Boston Seattle Denver Miami Dallas Austin
        Houston Lima Bogota Quito Santiago Havana
        """
    ),
    "New York", "Los Angeles", "San Francisco", "Cape Town", "Hong Kong", "Mexico City", "Buenos Aires",
)  # fmt: skip
MONTHS = _words(
    """
    January February March April May June July August September October November December
    """
)
ANIMALS = _words(
    """
    cat dog horse cow sheep goat pig mouse rabbit fox wolf bear lion tiger monkey zebra whale fish frog bird
    owl duck hen bee hedgehog squirrel elephant turtle dragon unicorn penguin kitten puppy pony snail
    """
)
PEOPLE = _words(
    """
    king queen princess prince boy girl knight wizard witch pirate robot teacher farmer baker sailor doctor
    child giant clown painter astronaut grandmother grandfather
    """
)
THINGS = _words(
    """
    star tree boat ball kite train car cloud flower moon house book lamp balloon rocket ship stone clock
    bell hat snowman castle leaf drum
    """
)
NOUNS = _words(
    """
    phone computer bicycle engine kitchen garden camera printer ticket wallet jacket shirt shoe sofa fridge
    oven cake pizza sandwich salad coffee tea juice battery radio television keyboard screen website server
    database contract invoice budget salary holiday passport visa hotel airport bridge tunnel tower museum
    theatre library school university hospital factory office market bank church temple stadium park zoo
    farm tractor truck helicopter submarine telescope microscope satellite robot drone magnet candle mirror
    ladder hammer drill needle button carpet curtain pillow blanket towel bottle basket bucket suitcase
    umbrella necklace ring watch violin trumpet novel poem essay newspaper magazine letter recipe diet
    workout tent map compass calendar newsletter résumé speech password file folder spreadsheet presentation
    video podcast
    """
)
VERBS = _words(
    """
    build repair clean cook bake buy sell paint draw wash fold design install update remove choose compare
    plan improve test measure carry move open close lock copy print scan send deliver borrow rent invest
    save learn teach study train practise swim run climb dance sing juggle knit sew plant water feed invent
    destroy
    """
)
TOPICS = (
    *_words(
        """
        physics chemistry biology astronomy geology history philosophy psychology economics politics
        religion law medicine anatomy genetics evolution photosynthesis gravity electricity magnetism
        entropy thermodynamics relativity democracy capitalism communism feminism inflation taxation
        globalisation migration poverty education literature poetry grammar linguistics mathematics algebra
        geometry calculus statistics probability topology cryptography programming networking blockchain
        bitcoin robotics nanotechnology biotechnology football cricket tennis basketball chess poker golf
        rugby skiing surfing yoga meditation nutrition vitamins cancer diabetes influenza malaria asthma
        allergies vaccines antibiotics surgery dentistry dinosaurs volcanoes earthquakes hurricanes
        tornadoes glaciers deserts rainforests oceans rivers comets asteroids planets galaxies Jupiter
        Saturn Mars Venus Neptune Mercury atoms electrons neutrons quarks photons lasers semiconductors
        transistors batteries engines aeroplanes bridges architecture painting sculpture photography cinema
        opera jazz ballet theatre fashion cooking baking farming fishing mining banking insurance
        advertising marketing journalism diplomacy war peace justice freedom happiness love friendship death
        time infinity consciousness dreams memory language music art beauty truth money gold oil coal steel
        plastic concrete glass cotton silk wine beer chocolate sushi pasta spaghetti whisky vegetarianism
        recycling pollution biodiversity deforestation overpopulation urbanisation slavery colonialism
        feudalism nationalism Buddhism Islam Christianity Hinduism Judaism Stoicism existentialism
        utilitarianism mythology astrology folklore magic Linux Windows Android Docker Kubernetes Python
        JavaScript Rust TCP HTTP JSON SQL GPUs CPUs compilers recursion sorting hashing Triton PyTorch
        transformers attention embeddings backpropagation
        """
    ),
    "black holes", "quantum mechanics", "climate change", "machine learning", "artificial intelligence",
    "nuclear fusion", "solar energy", "the French Revolution", "the Roman Empire", "the Second World War",
    "the Cold War", "the Middle Ages", "the Renaissance", "the stock market", "the European Union",
    "the United Nations", "the human brain", "the immune system", "the Big Bang", "the speed of light",
    "the Great Wall of China", "the Eiffel Tower", "the Moon landing", "the water cycle",
    "the periodic table", "the theory of relativity", "the meaning of life", "the Olympic Games",
    "the World Cup", "the internet", "the Pythagorean theorem", "the Fibonacci sequence",
    "supply and demand", "string theory", "plate tectonics", "dark matter", "free will", "game theory",
    "interest rates", "renewable energy", "electric cars", "space travel", "social media",
    "classical music", "modern art", "ancient Egypt", "green tea", "large language models",
    "neural networks",
)  # fmt: skip
PERSONS = (
    *_words(
        """
        Shakespeare Napoleon Einstein Newton Darwin Mozart Beethoven Bach Picasso Rembrandt Gandhi Cleopatra
        Aristotle Plato Socrates Galileo Copernicus Kepler Tesla Edison Churchill Lincoln Washington
        Columbus Goethe Dante Homer Tolstoy Dickens Hemingway Gauss Euler Turing Lovelace Voltaire Kant
        Nietzsche Confucius Michelangelo Raphael Vivaldi Chopin Zeus Hercules Batman
        """
    ),
    "Marie Curie", "Ada Lovelace", "Alan Turing", "Julius Caesar", "Leonardo da Vinci", "Vincent van Gogh",
    "Nelson Mandela", "Martin Luther King", "Charlie Chaplin", "Sherlock Holmes", "Harry Potter",
    "Jane Austen", "Isaac Newton", "the president", "the prime minister", "the king of England", "the pope",
    "the best player in the world", "the richest person", "my neighbour",
)  # fmt: skip
COUNTRIES = _words(
    """
    France Germany Italy Spain Portugal England Scotland Ireland Norway Sweden Finland Denmark Poland
    Austria Switzerland Belgium Greece Turkey Russia Ukraine Egypt Morocco Nigeria Kenya Ethiopia India
    Pakistan China Japan Korea Vietnam Thailand Indonesia Australia Canada Mexico Brazil Argentina Chile
    Peru Colombia Cuba Iceland Hungary Romania Bulgaria Croatia Serbia Israel Iran Iraq Mongolia Nepal Mali
    Ghana
    """
)
LANGUAGES = _words(
    """
    French German Spanish Italian Portuguese Dutch Swedish Polish Russian Greek Turkish Arabic Hebrew Hindi
    Chinese Japanese Korean Latin Finnish Czech Vietnamese Swahili
    """
)
CODE_LANGUAGES = _words(
    """
    Python JavaScript TypeScript Java C Rust Go Ruby PHP Swift Kotlin Haskell Bash SQL Lua Perl R
    """
)
CODE_TASKS = (
    "sorts a list", "reverses a string", "reads a file", "prints hello world", "downloads a web page",
    "parses JSON", "computes prime numbers", "checks a password", "sends an email", "opens a socket",
    "counts words", "finds duplicates", "computes the factorial", "merges two dictionaries",
    "plays tic-tac-toe", "removes spaces", "converts a date", "searches a tree", "multiplies two matrices",
    "resizes an image",
)  # fmt: skip
FOREIGN = (
    "Hola", "Bonjour", "Guten Tag", "Wie geht es dir?", "Wer bist du?", "Comment ça va ?", "¿Cómo estás?",
    "Ciao, come stai?", "Qui es-tu ?", "Was kannst du?", "Was siehst du auf dem Bild?",
    "¿Qué ves en la imagen?", "Que vois-tu ?", "Erzähl mir eine Geschichte", "Raconte-moi une histoire",
    "Cuéntame un cuento", "Olá, tudo bem?", "Hej, hur mår du?", "Привет, как дела?", "Кто ты?", "你好",
    "你是谁?", "こんにちは", "안녕하세요", "مرحبا", "नमस्ते", "Merhaba", "Dzień dobry", "Wat is dit?",
    "Hallo, wie geht es Ihnen?",
)  # fmt: skip
