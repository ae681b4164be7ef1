// The Vercel AI SDK as a client. One argument of JSON: {mode, url, streams, answer}. Prints one line of JSON.
//
// model: an agent with a tool asks a model (provider: openai, anthropic) until it has an answer.
// agent: the same, its answer as the UI message stream that an agent's server sends: {headers, body}.
// chat:  the chat of a browser asks the agent at `url` with the SDK's own transport and reads its stream.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { DefaultChatTransport, generateText, readUIMessageStream, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

globalThis.AI_SDK_LOG_WARNINGS = false; // they would go to stdout
const { mode, url, provider, streams, headers } = JSON.parse(process.argv[2]);
const settings = { baseURL: `${url}/v1`, apiKey: "sk-test", headers };
const models = {
  responses: () => createOpenAI(settings)("gpt-5"),
  chat: () => createOpenAI(settings).chat("gpt-4o"),
  anthropic: () => createAnthropic(settings)("claude-test"),
};
const question = "Close my ticket T-1, please.";
const work = () => ({
  model: models[provider](),
  system: "You help.",
  prompt: question,
  maxRetries: 0,
  stopWhen: stepCountIs(3),
  tools: {
    close_ticket: tool({
      description: "Close a ticket.",
      inputSchema: z.object({ ticket: z.string(), note: z.string() }),
      execute: async ({ ticket }) => `closed ${ticket}`,
    }),
  },
});

async function model() {
  const result = streams ? streamText(work()) : await generateText(work());
  const steps = await result.steps;
  return {
    text: await result.text,
    calls: steps.flatMap((step) => step.toolCalls.map(({ toolCallId, toolName, input }) => [toolCallId, toolName, input])),
    usage: steps.map((step) => [step.usage.inputTokens ?? null, step.usage.outputTokens ?? null]),
  };
}

async function agent() {
  const response = streamText(work()).toUIMessageStreamResponse({ generateMessageId: () => "msg-agent-0001" });
  return { headers: Object.fromEntries(response.headers), body: await response.text() };
}

async function chat() {
  const transport = new DefaultChatTransport({ api: `${url}/api/chat`, headers });
  const messages = [{ id: "m-1", role: "user", parts: [{ type: "text", text: question }] }];
  const stream = await transport.sendMessages({ chatId: "chat-42-abcd", messages, trigger: "submit-message" });
  let last;
  for await (const message of readUIMessageStream({ stream })) last = message;
  return { id: last.id, text: last.parts.filter((part) => part.type === "text").map((part) => part.text).filter(Boolean).join("\n") };
}

process.stdout.write(JSON.stringify(await { model, agent, chat }[mode]()) + "\n");
