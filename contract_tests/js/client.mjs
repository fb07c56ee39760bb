// OpenAI's npm package against the server that OPENAI_BASE_URL names. One JSON line for each thing tried.
import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ maxRetries: 0 });
const model = process.env.CONTRACT_MODEL;
const messages = [{ role: "user", content: "Hi" }];
const Weather = z.object({ city: z.enum(["Paris", "Rome"]), days: z.enum(["1", "2", "3"]) });
const wild = { model, messages, temperature: 1.5, seed: 1, max_tokens: 200 };

// A WAV file of a square wave of 500 Hz.
function wav(seconds, amplitude) {
  const samples = Int16Array.from({ length: 16000 * seconds }, (_, at) => (at % 32 < 16 ? amplitude : -amplitude));
  const head = Buffer.from("RIFF....WAVEfmt ....................data....");
  head.writeUInt32LE(36 + samples.byteLength, 4);
  [[16, 16], [24, 16000], [28, 32000], [40, samples.byteLength]].forEach(([at, value]) => head.writeUInt32LE(value, at));
  [[20, 1], [22, 1], [32, 2], [34, 16]].forEach(([at, value]) => head.writeUInt16LE(value, at));
  return Buffer.concat([head, Buffer.from(samples.buffer)]);
}

const trials = {
  async whole() {
    const answer = await client.chat.completions.create({ model, messages, max_tokens: 8 });
    assert.equal(answer.object, "chat.completion");
    assert.equal(answer.choices[0].message.role, "assistant");
    assert.ok(answer._request_id);
  },

  async stream() {
    const options = { model, messages, max_tokens: 8, temperature: 0 };
    const whole = await client.chat.completions.create(options);
    let text = "";
    for await (const chunk of await client.chat.completions.create({ ...options, stream: true })) {
      text += chunk.choices[0]?.delta?.content ?? "";
    }
    assert.equal(text, whole.choices[0].message.content);
  },

  async streamHelper() {
    const stream = client.chat.completions.stream({ model, messages, max_tokens: 8, temperature: 0 });
    let text = "";
    stream.on("content", (delta) => (text += delta));
    assert.equal((await stream.finalMessage()).content, text);
  },

  async abort() {
    const stream = await client.chat.completions.create({ model, messages, max_tokens: 2000, stream: true });
    for await (const chunk of stream) {
      assert.ok(chunk.id);
      stream.controller.abort();
    }
  },

  async parse() {
    const answer = await client.chat.completions.parse({
      ...wild,
      response_format: zodResponseFormat(Weather, "weather"),
    });
    Weather.parse(answer.choices[0].message.parsed);
  },

  async toolRunner() {
    const asked = [];
    const runner = client.chat.completions.runTools(
      {
        ...wild,
        tool_choice: { type: "function", function: { name: "get_weather" } },
        tools: [
          {
            type: "function",
            function: {
              name: "get_weather",
              parameters: z.toJSONSchema(Weather),
              parse: (text) => Weather.parse(JSON.parse(text)),
              function: (day) => (asked.push(day), "21 degrees"),
            },
          },
        ],
      },
      { maxChatCompletions: 1 },
    );
    await runner.done();
    assert.equal(asked.length, 1);
  },

  async responses() {
    const options = { model, input: "Hi", max_output_tokens: 8, temperature: 0 };
    const whole = await client.responses.create(options);
    let text = "";
    let last;
    for await (const event of await client.responses.create({ ...options, stream: true })) {
      if (event.type === "response.output_text.delta") text += event.delta;
      last = event;
    }
    assert.equal(text, whole.output_text);
    assert.ok(["response.completed", "response.incomplete"].includes(last.type));
    assert.equal(last.response.usage.output_tokens, whole.usage.output_tokens);
  },

  async responsesParse() {
    const answer = await client.responses.parse({
      model,
      input: "Hi",
      temperature: 1.5,
      max_output_tokens: 200,
      text: { format: zodTextFormat(Weather, "weather") },
    });
    Weather.parse(answer.output_parsed);
  },

  async completions() {
    const answer = await client.completions.create({ model, prompt: "Once upon", max_tokens: 4, echo: true });
    assert.ok(answer.choices[0].text.startsWith("Once upon"));
  },

  async transcription() {
    const silent = await toFile(wav(20, 0), "silence.wav");
    const whole = await client.audio.transcriptions.create({ file: silent, model, response_format: "verbose_json" });
    assert.equal(whole.duration, 20);
    assert.deepEqual([whole.text, whole.segments], ["", []]);
    let text = "";
    const options = { model, stream: true, include: ["logprobs"], chunking_strategy: { type: "server_vad", threshold: 0.5 } };
    const file = await toFile(wav(1, 8000), "tone.wav");
    for await (const event of await client.audio.transcriptions.create({ ...options, file })) {
      if (event.type === "transcript.text.delta") text += event.delta;
      else assert.deepEqual([event.type, event.text], ["transcript.text.done", text]);
    }
    const words = { file: silent, model, response_format: "verbose_json", timestamp_granularities: ["word"] };
    await assert.rejects(client.audio.transcriptions.create(words), (error) => {
      assert.equal(error.param, "timestamp_granularities[0]");
      return true;
    });
  },

  async models() {
    const names = [];
    for await (const each of client.models.list()) names.push(each.id);
    assert.ok(names.includes(model));
    assert.equal((await client.models.retrieve(model)).id, model);
  },

  async errors() {
    await assert.rejects(client.chat.completions.create({ model: "nobody", messages }), (error) => {
      assert.ok(error instanceof OpenAI.NotFoundError);
      assert.equal(error.code, "model_not_found");
      return true;
    });
    await assert.rejects(client.chat.completions.create({ model, messages: [] }), OpenAI.BadRequestError);
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
