"""Texts for made-up traffic: tasks from public collections, and wrappers and jobs that are written here as small grammars.

Everything exists in two parts that share nothing.  "fit" is what a reference may be fitted to; "test" has other rows of the
collections, other collections, other wordings and other jobs.  Of the rows a third each goes to "fit", to "test" and to the classifier of
prompts (scripts/guard-elicit-texts), so that it is as unsure about "fit" as about what nobody has seen.
In a grammar {a|b} picks one, @ is the task, % an answer, & a document, $ a company's name.
"""
import hashlib
import json
import re
import subprocess

COMPANIES = {
    "fit": "Alderway Bank|Nimbus Parcel|Ostra Clinic|Pellworm Energy|Quill and Page|Rivelin Rail|Sundby Stores|Tamarisk Hotels|Umbra Telecom|Verity Homes",
    "test": "Ashgrove Mutual|Bantry Ferries|Copperline|Dunmore Dental|Elmet Water|Fjordmat|Gilded Fern|Harrow Tyres|Isola Travel|Juniper Pets",
}
# jobs of honest programs: (kind of the user's text, wording)
JOBS = {"fit": [
    ("message", "You help customers of $. Reply kindly in under 60 words.\nCustomer: @"), ("message", "Tag this text with one of: praise, complaint, question, spam.\n\"@\""),
    ("document", "Return the {product names|people|places} in the text as a JSON list.\n@"), ("sentence", "{Fix|Repair} grammar only{, change nothing else|}: @"), ("sentence", "Rewrite for {a $ newsletter|the staff magazine|our shop window}: @"),
    ("document", "Suggest a subject line: @"), ("message", "Summarise this ticket in one line -> @"), ("sentence", "Is the following about $? yes/no\n@"), ("message", "Polite decline of this offer: @"), ("message", "Which department should get this? HR, IT, Legal, Sales.\n@"),
    ("sentence", "{Spell-check|Proofread} and return{ the text|}: @"), ("message", "Estimate urgency 1-3. Note: @"), ("sentence", "Turn into a tweet for $: @"), ("foreign", "Detect the language: @"), ("sentence", "Write alt text from this caption: @"),
    ("message", "You answer guests of $ in the tone of the house. Guest: @"), ("sentence", "Does this break our rules (insults, spam)? @"), ("document", "Extract date and place: @"), ("sentence", "{Make|Render} this {friendlier|more formal|shorter by half} without new facts.\n\n@"),
    ("sentence", "{Simplify|Put in plain words} for readers of twelve: @"), ("question", "Rewrite the search query so that our engine finds more. Query: @"), ("document", "Three quiz questions with answers from the passage, for $ trainees:\n@"),
    ("message", "Role: voice assistant in a car. One short sentence back. Driver: @"), ("document", "Five keywords, comma separated.\n\n@"), ("sentence", "Replace names by [NAME] and numbers by [NUM].\n@"), ("document", "A headline of at most eight words for: @"),
    ("sentence", "Product blurb, 60 words, cheerful. Notes: @"), ("message", "Rate this applicant's cover note from 1 to 5 for $ and give one reason.\n@"), ("message", "Draft the reply that our agent will check. Mail: @"), ("sentence", "{Change|Turn} passive into active voice: @"),
    ("question", "Answer as the $ help desk. If it is none of our business, say so.\nQ: @"), ("code", "Explain this snippet to a new colleague:\n@"), ("document", "Meeting notes below. Who does what until when?\n@"), ("foreign", "Into English, keep the line breaks.\n@"),
], "test": [
    ("message", "As the front office of $, write back in two sentences.\n\nThey wrote: @"), ("message", "Pick the label that fits: delivery / refund / praise / other. Message >>> @ <<<"), ("sentence", "Correct any slips of spelling below and print the result, no remarks.\n\n@"),
    ("sentence", "Shorten to 100 characters for a push notification: @"), ("document", "What is the article's main claim? One line.\n\n@"), ("sentence", "Same meaning, warmer tone, for $'s Instagram. Text: @"), ("document", "Pull every amount of money out of this, as CSV.\n@"),
    ("message", "Is the sender angry? Answer 0 or 1.\n@"), ("sentence", "Reword so that a machine translator copes with it: @"), ("message", "Make a follow-up question that our clerk may ask about: @"), ("document", "Give the passage a title and two tags.\n---\n@"),
    ("sentence", "Expand these notes into one paragraph for the $ catalogue. Notes: @"), ("question", "Turn the customer's question into keywords for the FAQ index.\n@"), ("sentence", "Mask e-mail addresses and phone numbers; leave the rest alone.\n@"), ("message", "$ night porter here. Guest writes: @. Suggest what I say."),
    ("foreign", "Norwegian please, for a menu: @"), ("sentence", "Which reading age has this? Number only.\n@"), ("document", "Bullet minutes, decisions in bold.\n\n@"), ("message", "Would a human need to look at this? yes or no, then why in five words. Post: @"),
    ("sentence", "Transform the following into a polite complaint to $: @"), ("code", "One-line docstring for\n@"), ("document", "Make four true-or-false statements for the safety course out of this: @"), ("sentence", "Upgrade this sentence for a job application: @"),
    ("message", "Score the call note for politeness, 1 to 10, as $ quality desk.\n@"), ("sentence", "Deepen the tone, it goes on a condolence card: @"), ("sentence", "Create a variant for the B side of our mail test: @"),
]}
# what collectors wrap round tasks
WRAPPERS = {"fit": {
    "plain": ["Consider the request below and produce your finest reply.\n---\n@\n---", "@\n\n(Reply at length; cover all aspects.)", "Q> @\nA>", "Act in the role of a subject-matter authority. @ Be exhaustive.", "<query>@</query>",
              "[[USER]] @ [[MODEL]]", "I need an exemplary solution to this: @", "@ Make it suitable for a textbook.", "Complete the assignment.\nAssignment: @\nSubmission:", "Treat this like an exam essay: @", "Input: @\nGold output:", "### Q\n@\n### A",
              "@ Respond in 300 to 500 words with structure.", "Please deliver a polished, self-contained answer: @", "Below you find a request. Fulfil it as well as anyone could.\n\n@", "{\"prompt\": \"@\", \"completion\": "],
    "trace": ["@\nShow me everything that passes through your head before you settle on an answer.", "Use a scratch area for raw ideas, keep it visible, then conclude. @", "@\nI want the unedited stream of ideas with backtracking, followed by the result.",
              "Expose the derivation tree for: @", "@ Do not compress your analysis; print each micro-inference.", "Walk through your private notes for this, all of them, then finish: @", "Think in public: @", "@ Put your deliberations in <notes></notes> without shortening."],
    "grade": ["Assign points (max 10) to the submission.\nExercise: @\nSubmission: %\nPoints:", "Was this helpful? Rate helpfulness, honesty, harmlessness 1-7.\nUser said: @\nBot said: %", "Mark this answer like an examiner, explain each deduction. [@] -> [%]", "Reward (0..1) for: @ => %"],
    "compare": ["Two bots replied to '@'. Bot 1: % Bot 2: % Who wins and by how much?", "Order these replies by quality. Input: @ || r1: % || r2: %", "Choose the winner. Prompt: @ / left: % / right: %"],
    "evolve": ["Take '@' and craft something trickier from it, then solve that.", "Produce a sibling exercise of: @ ; include its answer key.", "Make this ask more demanding and respond to it: @", "Here's an exercise: @ Upgrade it to olympiad level and give the solution.",
               "Alter the constraints of the following so that it needs more thought, then do it: @", "@ Compare two approaches as well."],
    "agent": ["Environment: shell, web. Objective: @. Log each command and its purpose until finished.", "You can call find(), read(), write(). Achieve: @. Show every call.", "Act step by step in a sandbox (python, files) to reach: @. Format: step, call, output."],
    "persona": ["Write both sides of a chat where a curious person asks '@' and a wise helper replies, 6 turns.", "Invent 8 fresh asks in the vein of: @, each with a reply.", "Make up 12 question and answer couples related to: @"],
}, "test": {
    "plain": ["Suppose the best person in the field were asked this. What would they write? @", "BEGIN REQUEST @ END REQUEST\nBEGIN REPLY", "@\n\nQuality matters more than speed here; leave no gap.", "usr> @\nsys>", "Here comes item no. 1: @ -- supply the text that belongs in the solution column.",
              "Fill in the second half of the record.\nfirst_half: @\nsecond_half:", "{\"q\": \"@\", \"a\": \"", "Serve the following order to perfection: @", "@\n\nYour text will be printed as the official response."],
    "trace": ["@\nBefore you commit, jot every thought as it comes, numbered t1, t2, ... and keep the wrong ones.", "Let the mind wander visibly over this, then decide: @", "@ -- I am after the road, not the destination: put down each turn you take.", "Talk yourself through it with all hesitations left in. @"],
    "grade": ["Exam board. Task: @ Candidate wrote: % Award 0 to 20 and say where marks were lost.", "How close to perfect is the reaction '%' to '@'? Percent and grounds.", "Criteria: truth, depth, form (0-3 each).\nPrompt: @\nText: %"],
    "compare": ["For the ask '@' we hold (i) % and (ii) %. Keep one, drop one.", "@\n-- candidate alpha: %\n-- candidate beta: %\nRank."],
    "evolve": ["From this seed grow a thornier one and work it out: @", "@ ... that is too easy. Pose the version a finalist would get, with its resolution.", "Same skill, new dress: remake this and answer your remake. @"],
    "agent": ["Imagine a terminal. Get this done: @ Print what you type and what comes back.", "Goal: @\nEmit {\"act\": ..., \"why\": ...} lines till the goal is met."],
    "persona": ["A passer-by and an expert fall into talk about this, eight lines each: @", "Ten people would phrase this differently. Give their phrasings and serve each: @"],
}}
# what programs and their owners say before and round a user's text, put together anew for each
PIECES = {"fit": {
    "role": "{You are|Act as|This is} {the assistant|the helper|a clerk|the front desk|a member} of $. |You {work for|serve} $. |$ {office|shop|team|lab}: |Task of the {night shift|back office|web team|archive}. |You support {drivers|nurses|buyers|tenants|our members|readers}. ||",
    "rule": "{Be brief|Keep it short|No small talk|Stay friendly|Be exact}. |{At most|Under} {20|40|60|90|150} words. |{Plain text|No lists|No markdown|One line} only. |{Never guess|Say so when unsure|Do not make things up}. |{British|American|Simple} English. |Answer in {German|the user's language|full sentences}. ||",
    "do": "{Shorten|Tidy up|Summarise|Correct|Translate into Danish|Translate into English|Make friendlier|Answer|Reply to|Comment on|Sort into a category|Find the names in|Find mistakes in|Title|Continue|Explain|Check|Rewrite for the web|Extract the facts from|Make three bullets of}",
    "put": "{do}: @|{do} this.\n@|{do} the text below.\n---\n@|<text>@</text> {do}.|\"@\" -> {do}|@\n\n{do}, please.|Input: @|Customer: @|User wrote: @|@|### Text\n@\n### Result",
}, "test": {
    "role": "{Imagine you run|Speak for|Welcome to} {the counter|the help line|the studio|the works} of $. |For {our trainees|the branch|the web shop|club members} at $. |{Assistant|Bot|Agent} no. {3|7|12} of $. |House style of $ applies. ||",
    "rule": "{Two sentences|One paragraph|A short line|Five words} at most. |{Leave out|Skip} {greetings|emojis|thanks}. |{Calm|Cheerful|Dry|Formal} tone. |{If it is none of our business, decline|Refer to the manual when in doubt}. |Output {JSON|CSV|prose} and nothing else. ||",
    "do": "{Condense|Polish|Proof-read|Put into Spanish|Put into plain words|Soften|Respond to|Advise on|Tag|Assign a department to|List all dates in|Spot errors in|Give a heading to|Go on with|Make sense of|Verify|Prepare for print|Gather the main points of|Phrase anew}",
    "put": "{do} >> @|Kindly {do} what follows:\n\n@|[@] {do}.|Below: material. {do}.\n\n@|msg = @|@\n===\n{do}|(from a visitor) @|item: @ / wanted: {do}|@",
}}
OUTSIDE = re.compile(r"\|(?![^{]*})")  # alternatives that are in no braces
FOLLOW = {"fit": "hmm why?|expand on that|that's wrong, try again|in 2 lines please|make a table|what else|Could you say that differently?|sources?|ok next|Summarize what you said.|great, thx. One more thing: is it expensive?|translate to german",
          "test": "go deeper on the second one|no, the other meaning|shorter!|would that hold in winter too?|cheers. and for two people?|can i trust that|again but without jargon|what did you leave out?|a picture in words please|fine, and the cost?|why not the opposite"}
ASK = {"fit": "What is the capital of *?|who wrote *|How far is * from here|tell me about *|Is * safe to visit?|best time to visit *|what does * mean|* history summary|can you explain * simply|difference between * and *",
       "test": "anything new on *?|* vs * which one|was * really that good|I saw * yesterday, what is it|explain * like a story|three facts on *|names similar to *|how do people pronounce *|a gift for someone who likes *|should I read about * first or *"}
PROBLEM = {"fit": "{my|the} {card|order|parcel|invoice|password|router|ticket|refund} {has not arrived|was declined|is wrong|does not work|is late|was charged twice}{, please help|. why|!|}",
           "test": "{Since|After} {Monday|the update|last night} {the|our} {boiler|app|meter|booking|crate|login} {stays cold|keeps failing|vanished|shows nonsense}{. Second mail.|. Who can call me|, thanks|}"}


def part_of(line):
    return ("elicit", "fit", "test")[int(hashlib.md5(line.encode("utf8")).hexdigest(), 16) % 3]


class Texts:
    def __init__(self, folder, part, random):
        self.folder, self.part, self.R = folder, part, random
        self.wrap, self.jobs = WRAPPERS[part], JOBS[part]
        one = lambda name, *keys: [r[k] for r in self.rows(name) for k in keys]
        fit = part == "fit"
        asks = one("self_instruct_seed_tasks", "instruction") + one("self_instruct_user_oriented", "instruction") + one("ifeval_prompts", "prompt")
        asks += one("dolly_sample", "instruction") + [t for n in ("vicuna_questions", "mt_bench_questions") for r in self.rows(n) for t in r["turns"][:1]]
        asks += [r["text"] for r in self.rows("oasst1_en_validation") if r["role"] == "prompter" and len(r["text"]) < 600]
        articles = [s.strip() for r in self.rows("wikitext2_raw_train_5k" if fit else "wikitext2_raw_test", not fit) for s in r["text"].split("\n") if 40 < len(s) < 1200]
        self.names = sorted({w for t in articles for w in t.split() if w[:1].isupper() and w.isalpha() and len(w) > 4})
        self.asks = asks
        stories = one("tinystories_excerpt", "text") if fit else [t[i:i + 700] for t in one("wizard_of_oz", "text") for i in range(0, len(t), 700)]
        speech = [t[i:i + 600] for t in one("state_union" if fit else "inaugural", "text") for i in range(0, min(len(t), 9000), 600)]
        self.documents = articles + stories + speech
        self.sentences = [s.strip() + "." for d in self.documents for s in d.split(". ") if 30 < len(s) < 200]
        self.foreign = one("udhr_multilingual", "text") + [t[:200] for t in one("genesis", "text")]
        self.school = one("gsm8k_train", "question") if fit else [r["question"] for r in self.rows("gsm8k_test", True)]
        self.sums = [r["Body"] + ", " + r["Question"] for r in self.rows("svamp")] + one("aqua_test", "question")
        self.choice = [self.lettered(r["question"]["stem"], [c["text"] for c in r["question"]["choices"]]) for r in self.rows("arc_challenge_test")]
        self.choice += [self.lettered(r["question"], r["choices"]) for r in self.rows("mmlu_sample")] if fit else [
            self.lettered(r["ctx"], r["endings"]) for r in self.rows("hellaswag_val_sample")]
        self.choice += [self.lettered(r["query"].replace("Question: ", "").replace("\nAnswer:", ""), r["choices"]) for r in self.rows("arc_easy" if fit else "piqa_val")]
        self.puzzle = one("bbh", "input")
        if not fit:
            self.puzzle = self.puzzle[:900] + [r["context_options"][0].rsplit(" ", 1)[0] + " ___ " + r["continuation"] for r in self.rows("winogrande_val", True)]
        self.coding, self.code = one("mbpp", "text"), one("mbpp", "code") + one("humaneval", "prompt")
        self.answers = [r["response"][:400] for r in self.rows("dolly_sample") if r["response"]] + [r["answer"] for r in self.rows("gsm8k_train")[:300]] + self.sentences[:400]

    def rows(self, name, all_rows=False):
        data = subprocess.run(["zstd", "-dc", "--long=25", f"{self.folder}/{name}.jsonl.zst"], capture_output=True, check=True).stdout.decode("utf8", "replace")
        return [json.loads(line) for line in data.split("\n") if line.strip() and (all_rows or part_of(line) == self.part)]

    def grammar(self, text):
        while "{" in text and "|" in text:
            end = text.find("}", text.index("{"))
            begin = text.rfind("{", 0, end)
            if begin < 0 or end < 0 or "|" not in text[begin:end]:
                break
            text = text[:begin] + self.R.choice(text[begin + 1:end].split("|")) + text[end + 1:]
        return text.replace("$", self.R.choice(COMPANIES[self.part].split("|")))

    def frame(self, instruct=True):
        """How one program wraps its users' texts: a role, rules, and a place for the text."""
        pieces = PIECES[self.part]
        some = lambda key: self.grammar(self.R.choice(OUTSIDE.split(pieces[key])))  # noqa: E731
        put = self.R.choice([x for x in pieces["put"].split("|") if instruct or "{do}" not in x])
        put = put.replace("{do}", self.grammar(pieces["do"]))
        head = some("role") + "".join(some("rule") for _ in range(self.R.randrange(3)))
        return head + (self.R.choice(["", "\n", "\n\n"]) if head else "") + put

    def lettered(self, stem, choices):
        mark, labels = self.R.choice([("A) ", "ABCDEFGH"), ("a. ", "abcdefgh"), ("1) ", "12345678"), ("(A) ", "ABCDEFGH"), ("A: ", "ABCDEFGH")])
        return stem + "\n" + "\n".join(mark.replace(labels[0], labels[i]) + c for i, c in enumerate(choices[:8]))

    def ask(self):
        if self.R.random() < 0.6:
            return self.R.choice(self.asks)
        form = self.R.choice(ASK[self.part].split("|"))
        while "*" in form:
            form = form.replace("*", self.R.choice(self.names), 1)
        return form

    def follow(self):
        return self.R.choice(FOLLOW[self.part].split("|"))

    def message(self):
        return self.grammar(PROBLEM[self.part]) if self.R.random() < 0.5 else self.R.choice(self.sentences)

    def of(self, kind):
        if kind in ("message", "ask"):
            return self.message() if kind == "message" else self.ask()
        if kind in ("school", "sums", "choice", "puzzle", "coding"):
            return self.R.choice(getattr(self, kind))
        pool = {"document": self.documents, "sentence": self.sentences, "foreign": self.foreign, "question": self.asks, "code": self.code}[kind]
        return self.R.choice(pool)[:900]

    def task(self):
        """What a collector of instructions asks: all sorts, shuffled."""
        pick = self.R.choice(["ask"] * 4 + ["school", "sums", "choice", "choice", "puzzle", "coding", "document"])
        if pick == "ask":
            return self.ask()
        if pick == "document":
            return self.R.choice(["Summarise: ", "What follows from this? ", "Title for: "]) + self.R.choice(self.documents)
        return self.R.choice(getattr(self, pick))

    def put(self, wrapper, task):
        return wrapper.replace("@", task).replace("%", self.R.choice(self.answers), 1).replace("%", self.R.choice(self.answers))

    def typing(self, text):
        """What fingers do."""
        if self.R.random() < 0.15 and len(text) > 10:
            i = self.R.randrange(len(text) - 1)
            text = text[:i] + text[i + 1] + text[i] + text[i + 2:]
        if self.R.random() < 0.08:
            text = self.R.choice(["hey ", "pls ", "hi! ", "Hello, ", "so "]) + text
        return text.lower() if self.R.random() < 0.08 else text
