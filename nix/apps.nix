# nix run .#serve: Triton, the gateway and the playground. nix run .#playground: only the playground.
{ pkgs, packages }:
let
  inherit (pkgs) lib;
  app = command: description: {
    type = "app";
    meta = { inherit description; };
    program = lib.getExe (
      pkgs.writeShellApplication {
        name = "gemma-triton-${command}";
        text = ''exec ${lib.getExe packages.default} ${command} "$@"'';
      }
    );
  };
in
rec {
  serve = app "serve" "Run Triton, the API and the playground until Ctrl-C";
  playground = app "playground" "Run the playground for any OpenAI-compatible server";
  default = serve;
}
