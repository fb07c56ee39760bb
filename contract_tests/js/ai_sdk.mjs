// Vercel's AI SDK with its default provider, which uses the Responses API. One JSON line for each thing tried.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const openai = createOpenAI({ baseURL: process.env.OPENAI_BASE_URL, apiKey: process.env.OPENAI_API_KEY });
const model = openai(process.env.CONTRACT_MODEL);
const limits = { maxOutputTokens: 8, temperature: 0, maxRetries: 0 };

const trials = {
  async aiSdkText() {
    const whole = await generateText({ model, prompt: "Hi", ...limits });
    const stream = streamText({ model, prompt: "Hi", ...limits });
    let text = "";
    for await (const delta of stream.textStream) text += delta;
    assert.equal(text, whole.text);
    assert.ok((await stream.usage).outputTokens > 0);
  },

  async aiSdkTools() {
    const asked = [];
    const weather = tool({
      inputSchema: z.object({ city: z.enum(["Paris", "Rome"]) }),
      execute: async ({ city }) => (asked.push(city), "21 degrees"),
    });
    const result = await generateText({
      model,
      prompt: "The weather in Paris?",
      tools: { weather },
      stopWhen: stepCountIs(2),
      prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" }),
      maxOutputTokens: 200,
      maxRetries: 0,
    });
    assert.ok(asked.length > 0);
    assert.equal(result.steps.length, 2);
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
