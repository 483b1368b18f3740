// Itanium mangled names of at::native's kernel templates. Substitutions beyond S0_ (at::native) and S1_
// (its anonymous namespace) are not used: a demangler reads the long form as well.
#pragma once

#include <string>

#include "launch.h"

namespace simcuda {

using std::string;

inline string name(const string &identifier) { return std::to_string(identifier.size()) + identifier; }

inline string repeat(const string &text, int times) {
  string all;
  for (int i = 0; i < times; i++) all += text;
  return all;
}

// void at::native::vectorized_elementwise_kernel<4, F, std::array<char*, n> >(int, F, std::array<..>)
inline string elementwise(const string &functor, int64_t operands) {
  return "_ZN2at6native29vectorized_elementwise_kernelILi4E" + functor + "St5arrayIPcLm" +
         std::to_string(operands) + "EEEEviT0_T1_";
}

// at::native::NAME<T...>
inline string functor(const string &identifier, const string &types) {
  return "NS0_" + name(identifier) + "I" + types + "EE";
}

// The lambda that AT_DISPATCH makes within FUNCTION(TensorIteratorBase&), for one element type.
inline string lambda(const string &function, const OpFacts &facts, int inputs) {
  return "ZZZNS0_" + name(function) + "ERNS_18TensorIteratorBaseEENKUlvE_clEvENKUlvE0_clEvEUl" +
         (inputs ? repeat(facts.type.mangled, inputs) : "v") + "E_";
}

inline string binary(const string &operation, const OpFacts &facts) {
  string t = facts.type.mangled, inner = "NS0_15binary_internal" + name(operation) + "I" + t + "EE";
  if (facts.scalar) return elementwise(functor("AUnaryFunctor", t + t + t + inner), 2);
  return elementwise(functor("BinaryFunctor", t + t + t + inner), 3);
}

// void at::native::reduce_kernel<512, 1, at::native::ReduceOp<T, OPS, unsigned int, T, 4, 4> >(..)
inline string reduction(const string &ops, const string &t) {
  return "_ZN2at6native13reduce_kernelILi512ELi1ENS0_8ReduceOpI" + t + ops + "j" + t +
         "Li4ELi4EEEEEvT1_";
}

inline string sum(const string &t) {
  return reduction("NS0_14func_wrapper_tI" + t + "ZNS0_11sum_functorI" + t + "f" + t +
                       "EclERNS_14TensorIteratorEEUlffE_EE",
                   t);
}

// void at::native::(anonymous namespace)::NAME<TYPES>(ARGUMENTS)
inline string local(const string &identifier, const string &types, const string &arguments) {
  return "_ZN2at6native12_GLOBAL__N_1" + name(identifier) + "I" + types + "EEv" + arguments;
}

// void at::native::NAME<TYPES>(ARGUMENTS)
inline string native(const string &identifier, const string &types, const string &arguments) {
  return "_ZN2at6native" + name(identifier) + "I" + types + "EEv" + arguments;
}

}  // namespace simcuda
