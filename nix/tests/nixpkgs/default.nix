# import nixpkgs { system = …; }: the attributes that nix/ uses, and no others. docs/nix.md names the revision of
# nixpkgs in which each was looked up.
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

  cpu = lib.head (builtins.match "([a-z0-9_]+)-linux" system);

  stdenv = {
    cc = plain "gcc" // {
      cc.lib = plain "gcc-lib";
      libc.linuxHeaders.version = "6.18";
    };
    hostPlatform = {
      inherit system;
      parsed.cpu.name = cpu;
    };
    targetPlatform = {
      parsed.cpu.name = cpu;
      isLinux = true;
      isDarwin = false;
      isFreeBSD = false;
    };
  };

  # The arguments that nix/lock.nix and pyproject.nix pass; an unknown one is an error.
  buildPythonPackage =
    {
      pname,
      version,
      src,
      dependencies,
      pyproject ? null,
      format ? null,
      build-system ? [ ],
      optional-dependencies ? { },
      disabled ? false,
      pythonRelaxDeps ? [ ],
      nativeBuildInputs ? [ ],
      buildInputs ? [ ],
      preFixup ? "",
      appendRunpaths ? [ ],
      autoPatchelfIgnoreMissingDeps ? [ ],
      dontStrip ? false,
      passthru ? { },
      meta ? { },
    }:
    assert (pyproject == null) != (format == null);
    assert !disabled;
    assert builtins.isList autoPatchelfIgnoreMissingDeps;
    derivation' "${pname}-${version}" {
      inherit
        pname
        version
        src
        dependencies
        ;
      inputs =
        dependencies ++ build-system ++ nativeBuildInputs ++ buildInputs ++ pythonRelaxDeps ++ appendRunpaths ++ [
          src
          preFixup
        ];
    };

  interpreter =
    {
      self,
      packageOverrides ? _: _: { },
    }:
    let
      base =
        _:
        lib.genAttrs [
          "packaging"
          "poetry-core"
          "setuptools"
        ] plain
        // {
          inherit buildPythonPackage;
          python = self;
          requiredPythonModules =
            packages: [ self ] ++ packages ++ lib.concatMap (package: package.dependencies or [ ]) packages;
        };
      set = lib.fix (final: base final // packageOverrides final (base final));
    in
    derivation' "python3" rec {
      inherit stdenv;
      version = "3.12.13";
      pythonVersion = "3.12";
      passthru = {
        inherit pythonVersion;
        implementation = "cpython";
      };
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
  inherit lib python312 stdenv;
  cudaPackages_13.cuda_nvcc = assert config.allowUnfree; plain "cuda_nvcc";
  fetchPypi =
    {
      pname,
      version,
      format,
      dist,
      python,
      abi,
      platform,
      sha256,
    }:
    assert format == "wheel" && dist == python && builtins.stringLength sha256 == 64;
    plain "${pname}-${version}-${python}-${abi}-${platform}";
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
