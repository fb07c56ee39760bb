# nix run .#serve, and .#playground for the page alone.
{ pkgs, packages }:
let
  inherit (pkgs) lib;
  app = command: {
    type = "app";
    program = lib.getExe (
      pkgs.writeShellApplication {
        name = "gemma-triton-${command}";
        text = ''exec ${lib.getExe packages.default} ${command} "$@"'';
      }
    );
  };
in
{
  serve = app "serve";
  default = app "serve";
  playground = app "playground";
}
