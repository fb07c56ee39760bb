// Anthropic's npm package against the server that ANTHROPIC_BASE_URL names. One JSON line for each thing tried.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ maxRetries: 0 });
const model = process.env.CONTRACT_MODEL;
const messages = [{ role: "user", content: "Hi" }];
const greedy = { model, messages, max_tokens: 8, temperature: 0 };
const tools = [
  {
    name: "get_weather",
    input_schema: {
      type: "object",
      properties: { city: { enum: ["Paris", "Rome"] } },
      required: ["city"],
      additionalProperties: false,
    },
  },
];

const trials = {
  async message() {
    const answer = await client.messages.create(greedy);
    assert.equal(answer.type, "message");
    assert.ok(["end_turn", "max_tokens"].includes(answer.stop_reason));
    assert.ok(answer._request_id);
  },

  async messageStream() {
    const complete = await client.messages.create(greedy);
    const stream = client.messages.stream(greedy);
    let text = "";
    stream.on("text", (delta) => (text += delta));
    const final = await stream.finalMessage();
    assert.deepEqual(final.content, complete.content);
    assert.equal(text, complete.content.map((block) => block.text).join(""));
    assert.equal(final.usage.output_tokens, complete.usage.output_tokens);
  },

  async messageTools() {
    const options = { model, messages, tools, max_tokens: 200, temperature: 1.5 };
    const stream = client.messages.stream({ ...options, tool_choice: { type: "tool", name: "get_weather" } });
    const answer = await stream.finalMessage();
    const [call] = answer.content;
    assert.equal(answer.stop_reason, "tool_use");
    assert.ok(["Paris", "Rome"].includes(call.input.city));
    const result = { type: "tool_result", tool_use_id: call.id, content: "21 degrees" };
    const history = [
      ...messages,
      { role: "assistant", content: answer.content },
      { role: "user", content: [result] },
    ];
    const next = await client.messages.create({ ...greedy, tools, messages: history });
    assert.equal(next.role, "assistant");
  },

  async countTokens() {
    const prompt = { model, messages, tools, system: "Be brief." };
    const { input_tokens } = await client.messages.countTokens(prompt);
    const { usage } = await client.messages.create({ ...prompt, max_tokens: 2 });
    assert.equal(input_tokens, usage.input_tokens + usage.cache_read_input_tokens);
  },

  async messageErrors() {
    await assert.rejects(client.messages.create({ ...greedy, model: "nobody" }), (error) => {
      assert.ok(error instanceof Anthropic.NotFoundError);
      assert.equal(error.error.error.type, "not_found_error");
      return true;
    });
    await assert.rejects(client.messages.create({ ...greedy, messages: [] }), Anthropic.BadRequestError);
  },
};

for (const [name, trial] of Object.entries(trials)) {
  try {
    await trial();
    console.log(JSON.stringify({ name, ok: true }));
  } catch (error) {
    console.log(JSON.stringify({ name, ok: false, error: String(error.stack) }));
  }
}
