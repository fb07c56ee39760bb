# import nixpkgs { system = …; }. A Python package is known when its name is in python-packages.txt: what
# the real set was seen to have, so that a new dependency is looked up there before it is listed.
{
  system,
  config ? { },
}:
let
  lib = import ./lib.nix;

  derivation' =
    name: rest:
    derivation {
      inherit name system;
      builder = "/bin/sh";
      args = [ "-c" (builtins.toJSON (rest.inputs or [ ])) ];
    }
    // {
      pname = name;
      meta.mainProgram = name;
    }
    // rest;
  plain = name: derivation' name { };

  known = lib.filter (name: builtins.isString name && name != "") (
    builtins.split "\n" (builtins.readFile ./python-packages.txt)
  );

  interpreter =
    {
      self,
      packageOverrides ? _: _: { },
    }:
    let
      base =
        final:
        lib.genAttrs known plain
        // {
          python = self;
          fetchPypi =
            arguments:
            assert arguments.format == "wheel" && builtins.stringLength arguments.sha256 == 64;
            plain "${arguments.pname}-${arguments.version}-${arguments.python}-${arguments.platform}";
          buildPythonPackage =
            arguments:
            derivation' "${arguments.pname}-${arguments.version}" (
              arguments
              // {
                inputs =
                  arguments.dependencies or [ ] ++ arguments.build-system or [ ] ++ lib.optional (arguments ? src) arguments.src;
              }
            );
        };
      set = lib.fix (final: base final // packageOverrides final (base final));
    in
    derivation' "python3" {
      pname = "python3";
      pythonVersion = "3.12";
      pkgs = set;
      override = arguments: interpreter ({ inherit self; } // arguments);
      withPackages = f: derivation' "python3-env" { inputs = f set; };
    };

  python312 = interpreter { self = python312; };
in
lib.genAttrs [
  "autoPatchelfHook"
  "curl"
  "git"
  "gnumake"
  "nixfmt-tree"
  "nodejs"
  "zlib"
] plain
// {
  inherit lib python312;
  cudaPackages.cuda_nvcc = assert config.allowUnfree; plain "cuda_nvcc";
  stdenv = {
    cc = plain "gcc" // {
      cc.lib = plain "gcc-lib";
    };
    hostPlatform.parsed.cpu.name = lib.head (builtins.match "([a-z0-9_]+)-linux" system);
  };
  mkShell = arguments: derivation' "nix-shell" (arguments // { inputs = arguments.packages; });
  runCommand =
    name: environment: text:
    derivation' name { inputs = environment.nativeBuildInputs ++ [ text ]; };
  writeShellApplication =
    arguments:
    derivation' arguments.name {
      inherit (arguments) text;
      inputs = arguments.runtimeInputs or [ ];
    };
}
